//! What a file given as a plugin is, before anything is compiled.

use wasmtime::Engine;

use crate::error::Refused;

/// How every WebAssembly file begins; the next four bytes tell a module from a component.
const WASM: &[u8] = b"\0asm";
const MODULE: &[u8] = &[1, 0, 0, 0];
/// The custom section in which an SDK leaves its name and version.
const SDK_SECTION: &str = "windlass:sdk";
/// Deepest nesting of modules in components that is looked into.
const MAX_DEPTH: u32 = 8;

/// Refuses what is no component, naming what it is.
pub(crate) fn check(bytes: &[u8], limit: usize) -> Result<(), Refused> {
    if bytes.len() > limit {
        return Err(Refused::TooLarge { size: bytes.len(), limit });
    }
    let not = |found: &str, fix: &'static str| Err(Refused::NoComponent { found: found.to_owned(), fix });
    // Native code would run with all rights of the server, so it is never taken from outside.
    if Engine::detect_precompiled(bytes).is_some() || bytes.starts_with(b"\x7fELF") {
        return not("compiled native code", "install the component (`.wasm`) it was made from");
    }
    let build = "build it with `cargo xtask plugins`, which makes components";
    match bytes.strip_prefix(WASM) {
        Some(rest) if rest.starts_with(MODULE) => not("a core WebAssembly module", build),
        Some(_) => Ok(()),
        None if bytes.is_empty() => not("an empty file", build),
        None if bytes.starts_with(b"PK") => not("a zip archive", "unpack it and install the `.wasm` file in it"),
        None if bytes.trim_ascii_start().starts_with(b"(component") => {
            not("WebAssembly text", "turn it into bytes first, for example with `wasm-tools parse`")
        }
        None => not("a file of another kind", build),
    }
}

/// What the SDK that built a component says of itself, such as `rust 0.1.0`.
pub(crate) fn sdk(bytes: &[u8]) -> Option<String> {
    find_sdk(bytes.get(8..)?, 0)
}

fn find_sdk(mut sections: &[u8], depth: u32) -> Option<String> {
    while let Some((&id, rest)) = sections.split_first() {
        let (len, rest) = leb(rest)?;
        let (body, rest) = rest.split_at_checked(len)?;
        sections = rest;
        match id {
            0 => {
                let (len, body) = leb(body)?;
                let (name, content) = body.split_at_checked(len)?;
                if name == SDK_SECTION.as_bytes() {
                    let text = String::from_utf8_lossy(content);
                    return Some(crate::text::one_line(&text, 100));
                }
            }
            // A core module or a component within: it begins with a header of its own.
            1 | 4 if depth < MAX_DEPTH && body.starts_with(WASM) => {
                if let Some(found) = body.get(8..).and_then(|inner| find_sdk(inner, depth + 1)) {
                    return Some(found);
                }
            }
            _ => {}
        }
    }
    None
}

/// An unsigned LEB128 number of at most 32 bits, and what follows it.
fn leb(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut value = 0_u64;
    for (at, byte) in bytes.iter().take(5).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((usize::try_from(value).ok()?, bytes.get(at + 1..)?));
        }
    }
    None
}
