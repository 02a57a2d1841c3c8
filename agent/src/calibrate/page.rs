//! One HTML page with three diagrams in SVG: reliability, risk over coverage, accuracy over escalated share. It loads
//! nothing from anywhere.

use super::labels::Set;
use super::study::Study;
use std::fmt::Write as _;
use tidegate_core::judge::{BINS, Pair, Verdict, deferral, reliability, risk_coverage};
use tidegate_schemas::TaskName;

/// Side of a diagram's field, in pixels.
const SIDE: f64 = 320.0;
/// Room for the axes, in pixels.
const EDGE: f64 = 44.0;
/// Points of a curve: more cannot be seen.
const POINTS: usize = 160;
/// Colours of the curves, told apart also without colour vision (Okabe and Ito 2008), then greys.
const COLOURS: [&str; 8] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#777777", "#aaaaaa"];

/// A named curve over 0..1.
struct Curve {
    name: String,
    colour: &'static str,
    points: Vec<(f64, f64)>,
}

/// The page.
pub(super) fn html(task: &TaskName, set: &Set, study: &Study) -> String {
    let mut text = String::from(
        "<!doctype html><meta charset=\"utf-8\"><title>Calibration</title><style>body{font:15px system-ui,sans-serif;\
         margin:2rem;max-width:80rem}figure{display:inline-block;margin:0 1.5rem 1.5rem 0}svg{background:#fff}</style>\n",
    );
    let _ = writeln!(text, "<h1>Calibration of task {task}</h1>");
    let _ =
        writeln!(text, "<p>{} labelled answers, cross-validated. Data: sha256 {}.</p>", set.answers.len(), set.sha256);
    text.push_str(&diagram(
        "Reliability",
        ("stated confidence", "share of right answers"),
        (0.0, 1.0),
        &reliable(study),
    ));
    let risks = risks(set, study);
    text.push_str(&diagram("Risk over coverage", ("kept share", "wrong among kept"), (0.0, top(&risks)), &risks));
    let deferrals = deferrals(set, study);
    let low = deferrals.iter().flat_map(|c| &c.points).map(|p| p.1).fold(1.0, f64::min);
    text.push_str(&diagram("Deferral", ("escalated share", "accuracy"), ((low - 0.01).max(0.0), 1.0), &deferrals));
    text
}

fn top(curves: &[Curve]) -> f64 {
    let most = curves.iter().flat_map(|c| &c.points).map(|p| p.1).fold(0.01, f64::max);
    (most * 1.1).min(1.0)
}

fn reliable(study: &Study) -> Vec<Curve> {
    let bins = reliability(&study.verdicts, BINS);
    vec![
        Curve { name: "perfect".to_owned(), colour: COLOURS[7], points: vec![(0.0, 0.0), (1.0, 1.0)] },
        Curve {
            name: format!("{BINS} bins of equal mass"),
            colour: COLOURS[0],
            points: bins.iter().map(|b| (b.confidence, b.right)).collect(),
        },
    ]
}

fn risks(set: &Set, study: &Study) -> Vec<Curve> {
    let curve = |(number, (name, scores)): (usize, (&'static str, Vec<f64>))| {
        let verdicts: Vec<Verdict> = scores.iter().zip(&set.answers).map(|(s, a)| (*s, a.right)).collect();
        let risks = risk_coverage(&verdicts);
        let n = risks.len() as f64;
        let points = thinned(risks.iter().enumerate().map(|(i, risk)| ((i + 1) as f64 / n, *risk)).collect());
        Curve { name: name.to_owned(), colour: COLOURS[number % COLOURS.len()], points }
    };
    study.routers(set).into_iter().enumerate().map(curve).collect()
}

fn deferrals(set: &Set, study: &Study) -> Vec<Curve> {
    let mut routers = study.routers(set);
    routers.push(("random", vec![0.0; set.answers.len()]));
    routers.push(("oracle", set.answers.iter().map(|a| f64::from(u8::from(a.right))).collect()));
    let curve = |(number, (name, scores)): (usize, (&'static str, Vec<f64>))| {
        let pairs: Vec<Pair> = Study::pairs(set, &scores);
        let n = pairs.len() as f64;
        let points = deferral(&pairs).iter().enumerate().map(|(kept, right)| (1.0 - kept as f64 / n, *right)).collect();
        Curve { name: name.to_owned(), colour: COLOURS[number % COLOURS.len()], points: thinned(points) }
    };
    routers.into_iter().enumerate().map(curve).collect()
}

fn thinned(points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    let step = points.len().div_ceil(POINTS).max(1);
    let last = points.last().copied();
    points.into_iter().step_by(step).chain(last).collect()
}

fn diagram(title: &str, axes: (&str, &str), (low, high): (f64, f64), curves: &[Curve]) -> String {
    let (width, height) = (SIDE + 2.0 * EDGE, SIDE + 2.0 * EDGE + 16.0 * curves.len() as f64);
    let x = |v: f64| EDGE + v * SIDE;
    let y = |v: f64| EDGE + SIDE - (v.clamp(low, high) - low) / (high - low) * SIDE;
    let mut svg = format!(
        "<figure><svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" role=\"img\" \
         aria-label=\"{title}\" font-size=\"11\"><text x=\"{EDGE}\" y=\"20\" font-size=\"15\">{title}</text>\
         <rect x=\"{EDGE}\" y=\"{EDGE}\" width=\"{SIDE}\" height=\"{SIDE}\" fill=\"none\" stroke=\"#999\"/>\n"
    );
    for i in 0..=4 {
        let at = f64::from(i) / 4.0;
        let value = low + at * (high - low);
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{at:.2}</text>",
            x(at),
            EDGE + SIDE + 14.0
        );
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{value:.3}</text>",
            EDGE - 4.0,
            y(value) + 4.0
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
        x(0.5),
        EDGE + SIDE + 28.0,
        axes.0
    );
    let _ = writeln!(svg, "<text x=\"{EDGE}\" y=\"{:.1}\">{}</text>", EDGE - 6.0, axes.1);
    for (number, curve) in curves.iter().enumerate() {
        let points: Vec<String> = curve.points.iter().map(|(a, b)| format!("{:.1},{:.1}", x(*a), y(*b))).collect();
        let (colour, wide) = (curve.colour, if curve.name == "combined" { 2.5 } else { 1.2 });
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{wide}\"/>",
            points.join(" ")
        );
        let line = EDGE + SIDE + 44.0 + 16.0 * number as f64;
        let _ = writeln!(svg, "<text x=\"{EDGE}\" y=\"{line:.1}\" fill=\"{colour}\">— {}</text>", curve.name);
    }
    svg.push_str("</svg></figure>\n");
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diagram_holds_its_curves_within_the_field() {
        let curve = Curve { name: "combined".to_owned(), colour: COLOURS[0], points: vec![(0.0, -3.0), (1.0, 7.0)] };
        let svg = diagram("Risk", ("kept", "wrong"), (0.0, 0.5), &[curve]);
        assert!(svg.contains("points=\"44.0,364.0 364.0,44.0\""), "{svg}");
        assert!(svg.contains("— combined") && svg.ends_with("</svg></figure>\n"));
        assert_eq!(thinned((0..1_000).map(|i| (f64::from(i), 0.0)).collect()).last(), Some(&(999.0, 0.0)));
    }
}
