//! A flame graph as an SVG file: what `perf script` prints, folded into a tree of frames and drawn, callers below. A frame is
//! as wide as the share of samples it was met in; its tooltip tells how many.
//!
//! Drawn here, for the crate that does it would change what the whole workspace's dependencies are compiled with.

use std::collections::BTreeMap;
use std::fmt::Write;

const WIDTH: f64 = 1600.0;
const ROW: f64 = 16.0;
/// Narrower frames cannot be seen.
const WIDTH_MIN: f64 = 0.5;
/// Of one character.
const CHARACTER: f64 = 6.6;
const HEAD: f64 = 28.0;

/// Samples of one function, under one caller.
#[derive(Default, Debug)]
pub struct Frame {
    pub samples: u64,
    callees: BTreeMap<String, Frame>,
}

impl Frame {
    /// From `perf script -F comm,ip,sym`: per sample the thread's name, then its frames, the innermost first, then nothing.
    pub fn of_script(script: &str) -> Frame {
        let mut root = Frame::default();
        for sample in script.split("\n\n") {
            let mut lines = sample.lines().filter(|line| !line.trim().is_empty());
            let Some(thread) = lines.next() else { continue };
            let mut path = lines.map(symbol).collect::<Vec<_>>();
            path.push(thread.trim());
            root.add(path.iter().rev());
        }
        root
    }

    fn add<'a>(&mut self, path: impl Iterator<Item = &'a &'a str>) {
        self.samples += 1;
        let mut frame = self;
        for name in path {
            frame = frame.callees.entry((*name).to_owned()).or_default();
            frame.samples += 1;
        }
    }

    fn depth(&self) -> usize {
        1 + self.callees.values().map(Frame::depth).max().unwrap_or(0)
    }

    pub fn svg(&self, title: &str) -> String {
        let height = HEAD + ROW * self.depth() as f64;
        let mut text = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" font-family=\"monospace\" font-size=\"11\">\n\
             <text x=\"4\" y=\"16\">{}, {} samples</text>\n",
            escaped(title),
            self.samples
        );
        let scale = WIDTH / self.samples.max(1) as f64;
        self.draw("all", 0.0, height - ROW, scale, &mut text);
        text + "</svg>\n"
    }

    /// Its own rectangle, and those of its callees above it.
    fn draw(&self, name: &str, x: f64, y: f64, scale: f64, text: &mut String) {
        let width = self.samples as f64 * scale;
        if width < WIDTH_MIN {
            return;
        }
        let share = 100.0 * width / WIDTH;
        let shown = name.chars().take((width / CHARACTER) as usize).collect::<String>();
        writeln!(
            text,
            "<g><title>{} ({} samples, {share:.1} %)</title><rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{:.1}\" fill=\"{}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\">{}</text></g>",
            escaped(name),
            self.samples,
            ROW - 1.0,
            color(name),
            x + 2.0,
            y + 11.0,
            escaped(&shown)
        )
        .expect("strings take everything");
        let mut x = x;
        for (callee, frame) in &self.callees {
            frame.draw(callee, x, y - ROW, scale, text);
            x += frame.samples as f64 * scale;
        }
    }
}

/// `  55d0c0ffee seriatim::main+0x1f` without address and offset.
fn symbol(line: &str) -> &str {
    let name = line.trim_start().split_once(' ').map_or("[unknown]", |(_, name)| name.trim());
    name.rsplit_once("+0x").map_or(name, |(name, _)| name)
}

/// A warm one, the same for the same name.
fn color(name: &str) -> String {
    let hash = name.bytes().fold(0_u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(u32::from(byte)));
    format!("rgb({},{},{})", 205 + hash % 50, 80 + hash / 50 % 120, 40 + hash / 6000 % 40)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPT: &str =
        "tokio-rt\n\t  1 leaf<T>+0x1\n\t  2 main+0x2\n\ntokio-rt \n\t  3 main\n\nscan\n\t  4 [unknown]\n\n";

    #[test]
    fn samples_are_folded_by_thread_and_caller() {
        let root = Frame::of_script(SCRIPT);
        assert_eq!((root.samples, root.depth()), (3, 4));
        let main = &root.callees["tokio-rt"].callees["main"];
        assert_eq!((main.samples, main.callees["leaf<T>"].samples), (2, 1));
        assert_eq!(root.callees["scan"].callees["[unknown]"].samples, 1);
    }

    #[test]
    fn a_frame_is_as_wide_as_its_share() {
        let svg = Frame::of_script(SCRIPT).svg("query & process");
        assert!(svg.contains("query &amp; process, 3 samples"));
        assert!(svg.contains("<title>main (2 samples, 66.7 %)</title>"), "{svg}");
        assert!(svg.contains("leaf&lt;T&gt;"));
        assert_eq!(svg.matches("width=\"1600.0\"").count(), 1);
    }

    #[test]
    fn nothing_measured_is_an_empty_picture() {
        assert!(Frame::of_script("").svg("x").ends_with("</svg>\n"));
    }
}
