//! Rhai as scripts get it: raw, with chosen packages and every limit set.
//!
//! Nothing is left at a default: some defaults read files, print to the server's output, have no bound, or differ
//! between debug and release builds, so that a script would behave differently in its author's tests.

use std::sync::OnceLock;

use rhai::{
    Engine, OptimizationLevel, Shared,
    module_resolvers::DummyModuleResolver,
    packages::{
        ArithmeticPackage, BasicArrayPackage, BasicFnPackage, BasicIteratorPackage, BasicMapPackage, BasicMathPackage,
        BasicStringPackage, LanguageCorePackage, LogicPackage, MoreStringPackage, Package,
    },
};

/// Stack of a thread that compiles or runs a script. Only what is touched costs memory. It is large because a chain
/// of closures, as long as the memory of a script allows, is dropped link within link.
pub(crate) const STACK: usize = 512 << 20;

/// Longest text, in bytes, and all texts in one value together.
pub(crate) const MAX_STRING: usize = 64 * 1024;
/// Most elements of an array, nested ones counted.
pub(crate) const MAX_ARRAY: usize = 1_000;
/// Most entries of a map, nested ones counted.
pub(crate) const MAX_MAP: usize = 1_000;
/// Deepest nesting of function calls.
pub(crate) const MAX_CALLS: usize = 16;
/// Most variables in scope at once.
pub(crate) const MAX_VARIABLES: usize = 128;
/// Most functions a script may define.
pub(crate) const MAX_FUNCTIONS: usize = 128;
/// Deepest nesting of an expression, outside functions and inside.
pub(crate) const MAX_EXPRESSION: (usize, usize) = (64, 32);

type Module = Shared<rhai::Module>;

/// An engine with the language and its limits, without host functions.
pub(crate) fn bare() -> Engine {
    let mut engine = Engine::new_raw();
    for module in packages() {
        engine.register_global_module(module.clone());
    }
    engine
        .set_module_resolver(DummyModuleResolver::new())
        .set_optimization_level(OptimizationLevel::None)
        .set_strict_variables(true)
        // Counted per run instead, in a way that closures cannot escape.
        .set_max_operations(0)
        .set_max_call_levels(MAX_CALLS)
        .set_max_expr_depths(MAX_EXPRESSION.0, MAX_EXPRESSION.1)
        .set_max_string_size(MAX_STRING)
        .set_max_array_size(MAX_ARRAY)
        .set_max_map_size(MAX_MAP)
        .set_max_variables(MAX_VARIABLES)
        .set_max_functions(MAX_FUNCTIONS)
        .set_max_modules(0)
        // Each call copies all that was curried before, so a chain of them costs its square; closures do not.
        .disable_symbol("curry")
        .disable_symbol("eval")
        .disable_symbol("import")
        .disable_symbol("export");
    engine
}

/// The packages, built once: they hold functions only. Clocks, blobs and bit fields are left out.
fn packages() -> &'static [Module] {
    static PACKAGES: OnceLock<Vec<Module>> = OnceLock::new();
    PACKAGES.get_or_init(|| {
        vec![
            LanguageCorePackage::new().as_shared_module(),
            ArithmeticPackage::new().as_shared_module(),
            LogicPackage::new().as_shared_module(),
            BasicStringPackage::new().as_shared_module(),
            MoreStringPackage::new().as_shared_module(),
            BasicIteratorPackage::new().as_shared_module(),
            BasicFnPackage::new().as_shared_module(),
            BasicMathPackage::new().as_shared_module(),
            BasicArrayPackage::new().as_shared_module(),
            BasicMapPackage::new().as_shared_module(),
        ]
    })
}
