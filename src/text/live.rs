//! Lines of a terminal that are drawn over each other: [`Live`], [`Meter`]. The
//! only file that knows indicatif; whatever it is given is shown on one line.

#![expect(
    clippy::disallowed_types,
    reason = "the one place where indicatif is used: it escapes what it is given"
)]

use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::{Text, one_line};

/// How often lines are drawn at most, a second.
const HZ: u8 = 8;

/// Lines at the bottom of the terminal at stderr.
#[derive(Debug)]
pub struct Live {
    multi: MultiProgress,
    color: bool,
}

/// One of them. It goes when it is dropped.
#[derive(Debug)]
pub struct LiveLine {
    multi: MultiProgress,
    bar: ProgressBar,
}

impl Live {
    /// None yet.
    pub fn new(color: bool) -> Self {
        Self {
            multi: MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(HZ)),
            color,
        }
    }

    /// Text that stays, above the lines.
    pub fn above(&self, text: &Text) {
        let _ = self.multi.println(text.render(self.color));
    }

    /// A line with `name`, its age, and its message.
    /// `elapsed` puts a time in words.
    pub fn running(&self, name: &str, elapsed: fn(Duration) -> String) -> LiveLine {
        // `wide_msg` is cut at the terminal's edge: a line that wraps cannot be redrawn.
        let template = if self.color {
            "{prefix}  {spinner:.cyan} {time:>6}  {wide_msg}"
        } else {
            "{prefix}  {spinner} {time:>6}  {wide_msg}"
        };
        let line = self.add(template, move |style| {
            style.with_key(
                "time",
                move |state: &ProgressState, to: &mut dyn std::fmt::Write| {
                    let _ = to.write_str(&elapsed(state.elapsed()));
                },
            )
        });
        line.bar.set_prefix(one_line(name).into_owned());
        line.bar.enable_steady_tick(Duration::from_millis(125));
        line
    }

    /// A line that is its message.
    pub fn plain(&self) -> LiveLine {
        self.add("{wide_msg}", |style| style)
    }

    fn add(&self, template: &str, with: impl FnOnce(ProgressStyle) -> ProgressStyle) -> LiveLine {
        let bar = self.multi.add(ProgressBar::new_spinner());
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(with(style));
        }
        LiveLine {
            multi: self.multi.clone(),
            bar,
        }
    }
}

impl LiveLine {
    /// Sets its text.
    pub fn message(&self, text: &str) {
        self.bar.set_message(one_line(text).into_owned());
    }
}

impl Drop for LiveLine {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
        self.multi.remove(&self.bar);
    }
}

/// A bar at stderr that fills; not there until it is shown.
#[derive(Debug)]
pub struct Meter {
    bar: ProgressBar,
}

impl Default for Meter {
    fn default() -> Self {
        Self::new()
    }
}

impl Meter {
    /// One that is not shown yet.
    pub fn new() -> Self {
        Self {
            bar: ProgressBar::hidden(),
        }
    }

    /// Whether it is not shown yet.
    pub fn is_hidden(&self) -> bool {
        self.bar.is_hidden()
    }

    /// Shows it from now on, its numbers as bytes if they are.
    pub fn show(&self, bytes: bool) {
        let template = if bytes {
            "{msg} [{wide_bar}] {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}, {eta} left"
        } else {
            "{msg} [{wide_bar}] {pos} of {len}"
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style.progress_chars("=> "));
        }
        self.bar
            .set_draw_target(ProgressDrawTarget::stderr_with_hz(HZ));
    }

    /// How far it is, of what.
    pub fn set(&self, what: &str, done: u64, total: u64) {
        self.bar.set_message(one_line(what).into_owned());
        self.bar.set_length(total);
        self.bar.set_position(done);
    }

    /// Takes it away.
    pub fn end(&self) {
        self.bar.finish_and_clear();
    }
}
