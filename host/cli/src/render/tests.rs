//! Every scene on every kind of output, as it is seen.

use std::sync::{Arc, Mutex};

use super::{tree::Size, *};
use crate::scene::{Act, Scene};

/// Terminals that the tree is looked at on: name, columns, rows.
const TERMINALS: [(&str, usize, usize); 3] = [("80x24", 80, 24), ("wide 160x40", 160, 40), ("narrow 36x8", 36, 8)];

/// Plays a scene to a renderer; `look` is called whenever the scene says so.
fn play(scene: &Scene, renderer: &mut dyn Renderer, mut look: impl FnMut()) {
    let mut view = View::blank(&scene.task);
    for act in &scene.acts {
        match act {
            Act::Event(event) => {
                let news = view.apply(event);
                renderer.event(event, &news, &view).unwrap();
            }
            Act::Look(now) => {
                renderer.tick(&view, now + 100).unwrap();
                look();
            }
            Act::Remark(text) => renderer.remark(text).unwrap(),
        }
    }
    renderer.end(&view).unwrap();
}

/// A terminal that keeps what it would show.
#[derive(Clone)]
struct Terminal(Arc<Mutex<vt100::Parser>>);

impl Terminal {
    fn new(width: usize, height: usize) -> Self {
        let [rows, columns] = [height, width].map(|size| u16::try_from(size).unwrap());
        Self(Arc::new(Mutex::new(vt100::Parser::new(rows, columns, 0))))
    }

    /// Its rows, without empty ones at the end.
    fn shows(&self) -> String {
        let terminal = self.0.lock().unwrap();
        let screen = terminal.screen();
        let rows: Vec<String> = screen.rows(0, screen.size().1).map(|row| row.trim_end().to_owned()).collect();
        rows.join("\n").trim_end().to_owned()
    }

    /// The same with what makes the colours.
    fn shows_coloured(&self) -> String {
        let terminal = self.0.lock().unwrap();
        let screen = terminal.screen();
        let rows = screen.rows_formatted(0, screen.size().1).map(|row| String::from_utf8(row).unwrap());
        rows.collect::<Vec<_>>().join("\u{1b}[m\n").trim_end_matches("\u{1b}[m\n").to_owned()
    }
}

impl io::Write for Terminal {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().process(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a tree shows at each look and at the end. The terminal is taller than told, so that nothing scrolls out of it.
fn screens(scene: &Scene, width: usize, height: usize, colour: bool) -> String {
    let terminal = Terminal::new(width, 120);
    let seen = || if colour { terminal.shows_coloured() } else { terminal.shows() };
    let mut tree = Tree::new(terminal.clone(), colour, move || Size { height, width });
    let mut told = String::new();
    play(scene, &mut tree, || told.push_str(&format!("{}\n--------\n", seen())));
    told + seen().as_str()
}

fn plain(scene: &Scene, verbose: bool) -> String {
    let mut page = Vec::new();
    play(scene, &mut Plain::new(&mut page, verbose), || {});
    let stamp = |line: &str| match line.split_once(" windlass | ") {
        Some((_, text)) => format!("(now) windlass | {text}"),
        None => line.to_owned(),
    };
    // The last line is coloured for who writes to a terminal; `anstream` strips that elsewhere.
    paint::bare(&String::from_utf8(page).unwrap()).lines().map(stamp).collect::<Vec<_>>().join("\n")
}

fn jsonl(scene: &Scene) -> String {
    let mut page = Vec::new();
    play(scene, &mut Jsonl(&mut page), || {});
    String::from_utf8(page).unwrap()
}

#[test]
fn every_scene_is_drawn_as_a_tree() {
    for (name, scene) in Scene::all() {
        let told: Vec<String> = TERMINALS
            .iter()
            .map(|(title, width, height)| format!("=== {title}\n{}", screens(&scene, *width, *height, false)))
            .collect();
        insta::assert_snapshot!(format!("tree__{name}"), told.join("\n\n"));
    }
}

#[test]
fn every_scene_is_told_in_plain_lines() {
    for (name, scene) in Scene::all() {
        let told = plain(&scene, false);
        assert!(!told.contains('\r') && !told.contains('\u{1b}'), "{name}: a log has no use for control characters");
        insta::assert_snapshot!(format!("plain__{name}"), told);
    }
}

#[test]
fn every_scene_is_told_as_json_lines() {
    for (name, scene) in Scene::all() {
        let told = jsonl(&scene);
        let count = told.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()).count();
        assert_eq!(count, scene.events().len(), "{name}: one object an event");
        insta::assert_snapshot!(format!("jsonl__{name}"), told);
    }
}

#[test]
fn colours_are_beside_the_words_and_never_instead_of_them() {
    for (name, scene) in Scene::all() {
        let bare = screens(&scene, 80, 24, false);
        let coloured = screens(&scene, 80, 24, true);
        if name == "failing-step" {
            insta::assert_snapshot!("colour", coloured.replace('\u{1b}', "␛"));
        }
        let stripped = paint::bare(&coloured);
        let lines = |text: &str| text.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>();
        assert_eq!(lines(stripped.trim_end()), lines(&bare), "{name}");
    }
}

#[test]
fn debug_lines_are_told_to_who_wants_them() {
    let (_, scene) = Scene::all().into_iter().find(|(name, _)| name == "success").unwrap();
    assert!(!plain(&scene, false).contains("rows: 12"));
    assert!(plain(&scene, true).contains("database/web1 | debug: rows: 12"));
}

#[test]
fn an_error_is_told_where_it_first_appears_and_once_more_at_the_end() {
    for (name, scene) in Scene::all() {
        let mut view = View::blank(&scene.task);
        scene.events().iter().for_each(|event| drop(view.apply(event)));
        let errors: Vec<String> =
            view.steps().flat_map(|step| &step.runs).filter_map(|run| run.error.clone()).collect();
        let told = [plain(&scene, false), screens(&scene, 400, 40, false)];
        for (error, told) in errors.iter().flat_map(|error| told.iter().map(move |told| (error, told))) {
            // The same words may be the error of several machines, each of which tells it.
            let machines = errors.iter().filter(|other| *other == error).count();
            let last = told.rsplit("--------").next().unwrap();
            assert_eq!(last.matches(error.as_str()).count(), 2 * machines, "{name}: {error}\n{last}");
        }
    }
}

#[test]
fn a_tree_that_was_wrapped_by_a_narrower_window_is_gone_over_whole() {
    let narrow = Terminal::new(10, 20);
    let mut live = live::Live::new(narrow.clone());
    live.show(&["kept".to_owned()], &["short".to_owned()], 10).unwrap();
    // As a terminal shows it that wrapped three lines of a wider window: 4 rows.
    live = live::Live::new(narrow.clone());
    live.show(&[], &["0123456789 12".to_owned(), "x".to_owned(), String::new()], 40).unwrap();
    live.show(&[], &["new".to_owned()], 10).unwrap();
    assert_eq!(narrow.shows(), "kept\nshort\nnew");
}

#[test]
fn nothing_in_a_tree_is_wider_than_its_terminal() {
    for (name, scene) in Scene::all() {
        // What is drawn in place must not wrap: the rows that are cleared would be the wrong ones.
        let mut view = View::blank(&scene.task);
        for event in scene.events() {
            view.apply(&event);
            for width in [20, 36, 80] {
                for line in tree::lines(&view, event.at_ms, Size { height: 10, width }, 0) {
                    assert!(console::measure_text_width(&line) < width, "{name}: {line:?} in {width}");
                }
            }
        }
    }
}
