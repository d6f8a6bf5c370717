//! What a section found, as a table for the terminal and for a page of `docs/`, and a plot.

use plotters::prelude::*;
use std::fs;
use std::path::{Path, PathBuf};

/// One part of the benchmark.
pub struct Section {
    /// Its markers in the document, and the name of its plot.
    pub name: &'static str,
    /// What was measured, in a sentence.
    pub what: String,
    /// The table's head.
    pub head: Vec<&'static str>,
    /// Its rows.
    pub rows: Vec<Vec<String>>,
    /// The plot's title with its unit, and its bars.
    pub plot: (String, Vec<(String, f64)>),
}

impl Section {
    /// Shows the table.
    pub fn print(self) -> Self {
        println!("\n{}\n\n{}", self.what, self.table());
        self
    }

    fn table(&self) -> String {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let head: Vec<String> = self.head.iter().map(ToString::to_string).collect();
        let rule: Vec<String> =
            head.iter().enumerate().map(|(i, _)| if i == 0 { "---" } else { "---:" }.into()).collect();
        line(&head) + &line(&rule) + &self.rows.iter().map(|row| line(row)).collect::<String>()
    }
}

/// The pages that have markers.
const PAGES: [&str; 2] = ["performance.md", "sizing.md"];

/// Puts tables between their markers in the page that has them, and plots beside it.
pub fn write(sections: &[Section]) {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    for section in sections {
        let (start, end) = (format!("<!-- {} -->\n", section.name), format!("<!-- end {} -->", section.name));
        let read = |page: &str| (docs.join(page), fs::read_to_string(docs.join(page)).unwrap());
        let (page, mut text) = PAGES.map(read).into_iter().find(|(_, text)| text.contains(&start)).unwrap();
        let from = text.find(&start).unwrap() + start.len();
        let to = text.find(&end).unwrap();
        let made = format!(
            "{}\n\n{}\n![{}](performance/{}.svg)\n",
            section.what,
            section.table(),
            section.plot.0,
            section.name
        );
        text.replace_range(from..to, &made);
        plot(&docs.join("performance").join(format!("{}.svg", section.name)), &section.plot);
        fs::write(page, text).unwrap();
    }
}

fn plot(path: &PathBuf, (title, bars): &(String, Vec<(String, f64)>)) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let most = bars.iter().map(|bar| bar.1).fold(0.0, f64::max) * 1.15;
    let size = (930, 90 + 28 * bars.len() as u32);
    let area = SVGBackend::new(path, size).into_drawing_area();
    area.fill(&WHITE).unwrap();
    let names: Vec<&String> = bars.iter().map(|bar| &bar.0).collect();
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 18))
        .margin(10)
        .x_label_area_size(30)
        .y_label_area_size(400)
        .build_cartesian_2d(0.0..most, (0..bars.len()).into_segmented())
        .unwrap();
    let name = |at: &SegmentValue<usize>| match at {
        SegmentValue::CenterOf(i) => {
            let at = (bars.len() - 1).checked_sub(*i);
            at.and_then(|at| names.get(at)).map(ToString::to_string).unwrap_or_default()
        }
        _ => String::new(),
    };
    chart.configure_mesh().disable_y_mesh().y_labels(bars.len()).y_label_formatter(&name).draw().unwrap();
    let drawn = bars.iter().rev().enumerate().map(|(i, (name, value))| {
        let color = if name.starts_with("floor") || name.starts_with("reference") {
            RGBColor(150, 150, 150)
        } else if name.contains("zero-cache") {
            RGBColor(255, 127, 14)
        } else {
            RGBColor(31, 119, 180)
        };
        let corners = [(0.0, SegmentValue::Exact(i)), (*value, SegmentValue::Exact(i + 1))];
        let mut bar = Rectangle::new(corners, color.filled());
        bar.set_margin(4, 4, 0, 0);
        bar
    });
    chart.draw_series(drawn).unwrap();
    area.present().unwrap();
}

/// The middle of `values`.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// With separators between thousands.
pub fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut grouped = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}
