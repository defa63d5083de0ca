//! Lines for the person watching a chore. They go to standard error: standard output belongs to the tools run.

/// Says what starts now.
#[allow(clippy::print_stderr)]
pub fn heading(text: &str) {
    eprintln!("\n==> {text}");
}

/// Says something about what is being done.
#[allow(clippy::print_stderr)]
pub fn line(text: &str) {
    eprintln!("    {text}");
}

/// Says why the chore failed.
#[allow(clippy::print_stderr)]
pub fn error(text: &str) {
    eprintln!("error: {text}");
}
