//! What to try next: the commands shown at the end. `--exit` runs each of them, so that none is shown that fails.

use xtask::say;

use super::servers::Server;
use crate::Outcome;

/// Each command with what it is for.
const COMMANDS: [(&[&str], &str); 5] = [
    (&["task", "list"], "everything that ran"),
    (&["task", "show", "2"], "the second deployment as a tree"),
    (&["machine", "list"], "the three targets"),
    (&["plugin", "list"], "the step types, each a sandboxed plugin"),
    (&["deploy", "shop", "--version", "1.0.0", "-e", "test"], "back to the version before"),
];

/// Tells what is there and what to do with it.
pub fn show(server: &Server, ports: &[u16]) {
    say::heading("the shop runs in version 1.1.0 on three targets");
    for port in ports {
        say::line(&format!("http://127.0.0.1:{port}/"));
    }
    say::line("");
    say::line(&format!("the REST API    {}/api/v1/openapi.json", server.url()));
    say::line(&format!("its token       {}", server.data().join("token").display()));
    say::line("");
    say::line("Try this in another terminal:");
    say::line(&format!("  export WINDLASS_URL={} WINDLASS_DATA={}", server.url(), server.data().display()));
    say::line(&format!("  alias windlass={}", server.program().display()));
    for (command, purpose) in COMMANDS {
        say::line(&format!("  {:<46} # {purpose}", format!("windlass {}", command.join(" "))));
    }
    say::line("");
}

/// Runs all the commands shown.
pub async fn try_out(server: &Server) -> Outcome {
    say::heading("trying each of these commands");
    for (command, _) in COMMANDS {
        let shown = command.join(" ");
        let said = server.ask(command).await.map_err(|error| format!("`windlass {shown}` failed: {error}"))?;
        say::line(&format!("windlass {shown}: {} lines", said.lines().count()));
    }
    Ok(())
}
