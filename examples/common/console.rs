//! Lines typed while others arrive. On a terminal they are edited, and what arrives is printed
//! above the line that is being typed; elsewhere they are read as they come, and repeated behind
//! the prompt, so that the output tells the whole course.

use std::io::{IsTerminal, stdin, stdout};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;

use reedline::{DefaultPrompt, DefaultPromptSegment, ExternalPrinter, Reedline, Signal};
use tokio::sync::mpsc;

/// Lines that are typed ahead, or wait to be printed.
const LINES: usize = 256;

/// Prints lines, without breaking the one that is being typed.
pub(crate) struct Console(Option<Editor>);

struct Editor {
    printer: ExternalPrinter<String>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// A console with this prompt, and the lines that are typed, until Ctrl-C, Ctrl-D or the end of
/// the input.
pub(crate) fn open(prompt: &str) -> (Console, mpsc::Receiver<String>) {
    let (typed, lines) = mpsc::channel(LINES);
    if !(stdin().is_terminal() && stdout().is_terminal()) {
        let prompt = prompt.to_owned();
        std::thread::spawn(move || read(&prompt, &typed));
        return (Console(None), lines);
    }
    let (printer, stop) = (ExternalPrinter::new(LINES), Arc::new(AtomicBool::new(false)));
    let editor = Reedline::create()
        .with_external_printer(printer.clone())
        .with_break_signal(Arc::clone(&stop));
    // The editor adds the `> ` itself.
    let left = DefaultPromptSegment::Basic(prompt.trim_end_matches("> ").to_owned());
    let prompt = DefaultPrompt::new(left, DefaultPromptSegment::Empty);
    let thread = std::thread::spawn(move || edit(editor, &prompt, &typed));
    (Console(Some(Editor { printer, stop, thread: Some(thread) })), lines)
}

fn read(prompt: &str, typed: &mpsc::Sender<String>) {
    for line in stdin().lines().map_while(Result::ok) {
        println!("{prompt}{line}");
        if typed.blocking_send(line).is_err() {
            return;
        }
    }
}

fn edit(mut editor: Reedline, prompt: &DefaultPrompt, typed: &mpsc::Sender<String>) {
    loop {
        match editor.read_line(prompt) {
            Ok(Signal::Success(line)) => {
                let is_last = is_exit(&line);
                if typed.blocking_send(line).is_err() || is_last {
                    return;
                }
            }
            // What is printed next is not to follow the prompt.
            Ok(Signal::ExternalBreak(_)) => return println!(),
            _ => return,
        }
    }
}

/// Whether a line asks to end.
pub(crate) fn is_exit(line: &str) -> bool {
    ["exit", "quit"].iter().any(|word| line.trim().eq_ignore_ascii_case(word))
}

impl Console {
    /// Prints a line.
    pub(crate) async fn print(&self, line: String) {
        let Some(editor) = &self.0 else { return println!("{line}") };
        let printer = editor.printer.clone();
        // The editor looks for lines a few times a second.
        let _ = tokio::task::spawn_blocking(move || printer.print(line)).await;
    }
}

impl Drop for Console {
    /// Gives the terminal back as it was.
    fn drop(&mut self) {
        let Some(editor) = &mut self.0 else { return };
        editor.stop.store(true, Relaxed);
        if let Some(thread) = editor.thread.take() {
            let _ = thread.join();
        }
        while let Some(line) = editor.printer.get_line() {
            println!("{line}");
        }
    }
}
