//! Queue depths over time, drawn: as one line of text and as an HTML page with one SVG.

use std::fmt::Write as _;

/// Depths of the gateway's queues at one moment.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub(crate) struct Sample {
    /// Seconds since the drawing began.
    pub(crate) at_s: f64,
    /// Prompts that wait or run.
    pub(crate) inbox: u64,
    /// Escalations without outcome.
    pub(crate) outbox: u64,
    /// Outcomes that no session has acknowledged.
    pub(crate) outcomes: u64,
}

/// A span of time that is shaded, such as the outage.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Span {
    /// Its begin, in seconds.
    pub(crate) from_s: f64,
    /// Its end, in seconds.
    pub(crate) to_s: f64,
}

/// Columns of a sparkline: fits a terminal of 80 with its label.
const SPARK_WIDTH: usize = 60;
const BARS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Which columns of a drawing of `SPARK_WIDTH` a span covers, as a line of its own.
pub(crate) fn span_line(span: Span, end_s: f64) -> String {
    let column = |at: f64| (at / end_s.max(f64::MIN_POSITIVE) * SPARK_WIDTH as f64).floor() as usize;
    let (from, to) = (column(span.from_s), column(span.to_s).min(SPARK_WIDTH - 1));
    (0..SPARK_WIDTH).map(|c| if c >= from && c <= to { '─' } else { ' ' }).collect()
}

/// The largest value in each of `SPARK_WIDTH` equal spans of time from zero to `end_s`; an empty span keeps the value
/// before it, so that a peak is never averaged away.
fn columns(points: &[(f64, u64)], end_s: f64) -> Vec<u64> {
    let mut columns: Vec<Option<u64>> = vec![None; SPARK_WIDTH];
    for (at, value) in points {
        let column = (at / end_s.max(f64::MIN_POSITIVE) * SPARK_WIDTH as f64).floor() as usize;
        let slot = &mut columns[column.min(SPARK_WIDTH - 1)];
        *slot = Some(slot.unwrap_or(0).max(*value));
    }
    let mut last = 0;
    let filled = columns.into_iter().map(|c| {
        last = c.unwrap_or(last);
        last
    });
    filled.collect()
}

/// One line of bars over time, the peak as high as a character.
pub(crate) fn sparkline(points: &[(f64, u64)], end_s: f64) -> String {
    let columns = columns(points, end_s);
    let peak = columns.iter().copied().max().unwrap_or(0).max(1);
    let top = BARS.len() as u64 - 1;
    columns.iter().map(|v| BARS[(v * top).div_ceil(peak) as usize]).collect()
}

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 320.0;
const MARGIN: f64 = 48.0;

struct Plot {
    end_s: f64,
    peak: f64,
}

impl Plot {
    fn x(&self, at_s: f64) -> f64 {
        MARGIN + at_s / self.end_s * (WIDTH - 2.0 * MARGIN)
    }

    fn y(&self, value: f64) -> f64 {
        HEIGHT - MARGIN - value / self.peak * (HEIGHT - 2.0 * MARGIN)
    }

    fn line(&self, samples: &[Sample], colour: &str, depth: impl Fn(&Sample) -> u64) -> String {
        let mut points = String::new();
        for sample in samples {
            let (x, y) = (self.x(sample.at_s), self.y(depth(sample) as f64));
            write!(points, "{x:.1},{y:.1} ").expect("writing to a string cannot fail");
        }
        format!("<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" points=\"{}\"/>\n", points.trim_end())
    }

    fn shade(&self, span: Span) -> String {
        let (x, width) = (self.x(span.from_s), self.x(span.to_s) - self.x(span.from_s));
        let height = HEIGHT - 2.0 * MARGIN;
        let label = "<text class=\"span\" x=";
        format!(
            "<rect x=\"{x:.1}\" y=\"{MARGIN}\" width=\"{width:.1}\" height=\"{height}\" fill=\"#f3dcd4\"/>\n\
             {label}\"{:.1}\" y=\"{:.1}\">link cut</text>\n",
            x + 4.0,
            MARGIN + 14.0
        )
    }

    fn axes(&self) -> String {
        let mut text = String::new();
        for quarter in 0..=4 {
            let share = f64::from(quarter) / 4.0;
            let (x, y) = (self.x(share * self.end_s), self.y(share * self.peak));
            let (right, foot) = (WIDTH - MARGIN, HEIGHT - MARGIN + 16.0);
            writeln!(
                text,
                "<line x1=\"{MARGIN}\" y1=\"{y:.1}\" x2=\"{right}\" y2=\"{y:.1}\" stroke=\"#ddd\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{:.0}</text>\
                 <text x=\"{x:.1}\" y=\"{foot}\" text-anchor=\"middle\">{:.0} s</text>",
                MARGIN - 6.0,
                y + 4.0,
                share * self.peak,
                share * self.end_s
            )
            .expect("writing to a string cannot fail");
        }
        text
    }
}

type Depth = fn(&Sample) -> u64;
const QUEUES: [(&str, &str, Depth); 3] =
    [("inbox", "#2563eb", |s| s.inbox), ("outbox", "#d9480f", |s| s.outbox), ("outcomes", "#2b8a3e", |s| s.outcomes)];

/// A page with one drawing of all queues.
pub(crate) fn page(title: &str, samples: &[Sample], outage: Option<Span>) -> String {
    let end_s = samples.iter().map(|s| s.at_s).fold(1.0, f64::max);
    let deepest = samples.iter().flat_map(|s| [s.inbox, s.outbox, s.outcomes]).max().unwrap_or(0).max(4);
    let plot = Plot { end_s, peak: deepest as f64 };
    let shade = outage.map(|span| plot.shade(span)).unwrap_or_default();
    let lines: String = QUEUES.iter().map(|(_, colour, depth)| plot.line(samples, colour, depth)).collect();
    let legend = |n: usize, name: &str, colour: &str| {
        format!("<text x=\"{}\" y=\"28\" fill=\"{colour}\">{name}</text>\n", MARGIN + 90.0 * n as f64)
    };
    let legends: String = QUEUES.iter().enumerate().map(|(n, (name, colour, _))| legend(n, name, colour)).collect();
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\n\
         <style>body{{font:14px sans-serif;margin:2rem}}text{{font:12px sans-serif}}.span{{fill:#a33}}</style></head>\n\
         <body><h1>{title}</h1>\n<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" role=\"img\">\n\
         {shade}{}{lines}{legends}</svg>\n</body></html>\n",
        plot.axes()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_full_and_nothing_is_blank() {
        let line = sparkline(&[(0.0, 0), (5.0, 10), (9.9, 0)], 10.0);
        assert_eq!(line.chars().count(), SPARK_WIDTH);
        assert_eq!(line.chars().next(), Some(' '));
        assert_eq!(line.chars().nth(SPARK_WIDTH / 2), Some('█'));
        assert_eq!(line.chars().last(), Some(' '));
    }

    #[test]
    fn one_waiting_prompt_is_never_drawn_as_none() {
        let line = sparkline(&[(0.0, 1), (5.0, 1000)], 10.0);
        assert_eq!(line.chars().next(), Some('▁'));
    }

    #[test]
    fn an_empty_drawing_is_blank() {
        assert_eq!(sparkline(&[], 0.0).trim(), "");
    }

    #[test]
    fn a_span_covers_its_share_of_the_columns() {
        let line = span_line(Span { from_s: 5.0, to_s: 10.0 }, 10.0);
        assert_eq!(line.chars().filter(|c| *c == '─').count(), SPARK_WIDTH / 2);
        assert!(line.starts_with(' '));
    }

    #[test]
    fn the_page_draws_every_queue_and_the_outage() {
        let sample = |at_s, outbox| Sample { at_s, inbox: 1, outbox, outcomes: 0 };
        let page = page("depths", &[sample(0.0, 0), sample(10.0, 8)], Some(Span { from_s: 2.0, to_s: 4.0 }));
        assert_eq!(page.matches("<polyline").count(), 3);
        assert!(page.contains("link cut"));
        // 864 units wide from 48; 224 high up from 272: the last point of the outbox stands at the top right.
        assert!(page.contains("48.0,272.0 912.0,48.0"), "{page}");
        assert!(page.contains("<rect x=\"220.8\" y=\"48\" width=\"172.8\""), "{page}");
    }
}
