//! The bridge between a type that implements [`Step`] and the functions a component exports.

use std::marker::PhantomData;
use std::sync::Once;

use crate::bindings::exports::windlass::step::{run, validate};
use crate::bindings::windlass::base::types;
use crate::bindings::windlass::machine::session::Session as RawSession;
use crate::{Inputs, Step, Target, log};

/// Makes the type that implements [`Step`] the plugin of this crate.
#[macro_export]
macro_rules! export_step {
    ($step:ty) => {
        #[doc(hidden)]
        type WindlassStepAdapter = $crate::Adapter<$step>;
        $crate::bindings::export!(WindlassStepAdapter with_types_in $crate::bindings);
    };
}

/// The version of this crate, read by the host before it compiles a component and named in its messages.
#[cfg(target_arch = "wasm32")]
#[used]
// A link section holds plain bytes; nothing is ever called or pointed to through it.
#[allow(unsafe_code)]
#[unsafe(link_section = "windlass:sdk")]
static SDK_VERSION: [u8; SDK_STAMP.len()] = stamp();

#[cfg(target_arch = "wasm32")]
const SDK_STAMP: &str = concat!("rust ", env!("CARGO_PKG_VERSION"));

#[cfg(target_arch = "wasm32")]
const fn stamp() -> [u8; SDK_STAMP.len()] {
    let mut bytes = [0; SDK_STAMP.len()];
    let mut at = 0;
    while at < bytes.len() {
        bytes[at] = SDK_STAMP.as_bytes()[at];
        at += 1;
    }
    bytes
}

#[doc(hidden)]
pub struct Adapter<S>(PhantomData<S>);

impl<S: Step> run::Guest for Adapter<S> {
    fn describe() -> String {
        install_panic_hook();
        S::manifest().to_json().to_string()
    }

    fn run(
        target: Option<&RawSession>,
        inputs: &crate::bindings::windlass::step::inputs::Inputs,
    ) -> Result<(), types::Failure> {
        install_panic_hook();
        S::run(&Target::new(target), &Inputs::new(inputs)).map_err(Into::into)
    }
}

impl<S: Step> validate::Guest for Adapter<S> {
    fn check(inputs_json: String) -> Vec<types::Failure> {
        install_panic_hook();
        match serde_json::from_str(&inputs_json) {
            Ok(inputs) => S::validate(&inputs).into_iter().map(Into::into).collect(),
            Err(error) => vec![crate::Failure::new("invalid-input", error).into()],
        }
    }
}

/// A panic ends the guest in a trap that has lost its text: write the text to the log first.
fn install_panic_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| std::panic::set_hook(Box::new(|panic| log::write(log::Level::Error, &panic.to_string(), &[]))));
}
