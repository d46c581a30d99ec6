//! Pieces of pictures, in pixels: colours that a style sheet turns dark, lines, text.

use maud::{Markup, PreEscaped, html};

/// A place, from the upper left corner.
pub(super) type Point = (f64, f64);

/// A colour of pictures: its class, which the style sheet overrides, and its value on light and on dark ground. A
/// viewer without style sheets shows the light one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Colour {
    fill: &'static str,
    stroke: &'static str,
    light: &'static str,
    dark: &'static str,
}

macro_rules! colour {
    ($class:literal, $light:literal, $dark:literal) => {
        Colour {
            fill: concat!("f-", $class),
            stroke: concat!("s-", $class),
            light: $light,
            dark: $dark,
        }
    };
}

pub(super) const INK: Colour = colour!("ink", "#1f2328", "#e6edf3");
pub(super) const MUTED: Colour = colour!("muted", "#656d76", "#9198a1");
pub(super) const GRID: Colour = colour!("grid", "#d8dee4", "#30363d");
pub(super) const HEAT: Colour = colour!("heat", "#1d4ed8", "#58a6ff");
pub(super) const MARK: Colour = colour!("mark", "#e8590c", "#ff922b");
pub(super) const ON_HEAT: Colour = colour!("onheat", "#ffffff", "#0d1117");
/// Above and below 0, and the opposite ends of a scale that has both; told apart by people who see colours differently.
pub(super) const ABOVE: Colour = colour!("above", "#0072b2", "#56b4e9");
pub(super) const BELOW: Colour = colour!("below", "#c04a00", "#ff9a52");
/// Of kinds of things that differ in their shape, too (after Okabe and Ito).
pub(super) const KINDS: [Colour; 8] = [
    colour!("k0", "#d55e00", "#ff9a52"),
    colour!("k1", "#0072b2", "#56b4e9"),
    colour!("k2", "#00785a", "#2bc79b"),
    colour!("k3", "#aa4f84", "#e79ac2"),
    colour!("k4", "#8a6a00", "#f0d442"),
    colour!("k5", "#2b7fb0", "#9ad7f7"),
    colour!("k6", "#5b4bb7", "#b9adff"),
    colour!("k7", "#59636e", "#9198a1"),
];
/// Of methods, told apart by people who see colours differently too. After the last it starts again,
/// with other dashes ([`line_round`]).
const LINES: [Colour; 8] = [
    colour!("l0", "#1d4ed8", "#58a6ff"),
    colour!("l1", "#0891b2", "#22d3ee"),
    colour!("l2", "#d9460b", "#ff922b"),
    colour!("l3", "#15803d", "#3fb950"),
    colour!("l4", "#a21caf", "#e879f9"),
    colour!("l5", "#78716c", "#a8a29e"),
    colour!("l6", "#b45309", "#facc15"),
    colour!("l7", "#4c1d95", "#c4b5fd"),
];

/// How often the colours can start again before dashes repeat, too.
pub(super) const ROUNDS: usize = 4;

/// The colour of the `at`-th method.
pub(super) const fn line_colour(at: usize) -> Colour {
    LINES[at % LINES.len()]
}

/// How often the colours started again before the `at`-th method.
pub(super) const fn line_round(at: usize) -> usize {
    at / LINES.len() % ROUNDS
}

impl Colour {
    /// The class of what is filled with it.
    pub(super) const fn fill(self) -> &'static str {
        self.fill
    }
}

/// Rules for the classes, light and dark.
pub(super) fn theme_css() -> String {
    let rules = |value: fn(&Colour) -> &'static str| -> String {
        let all = [INK, MUTED, GRID, HEAT, MARK, ON_HEAT, ABOVE, BELOW];
        let rule = |colour: &Colour| {
            let (fill, stroke, value) = (colour.fill, colour.stroke, value(colour));
            format!(".{fill}{{fill:{value}}}.{stroke}{{stroke:{value}}}")
        };
        all.iter().chain(&LINES).chain(&KINDS).map(rule).collect()
    };
    let (light, dark) = (rules(|colour| colour.light), rules(|colour| colour.dark));
    format!(
        "svg text{{font-family:system-ui,-apple-system,'Segoe UI',sans-serif}}{light}\
         @media (prefers-color-scheme:dark){{{dark}}}@media print{{{light}}}"
    )
}

/// A picture, before it is put into a page or a file.
#[derive(Debug)]
pub(super) struct Drawing {
    pub(super) file_name: String,
    /// What a screen reader says.
    pub(super) description: String,
    /// What it is to a screen reader: `img`, or `group` where something in it can be reached.
    pub(super) role: &'static str,
    /// Width and height.
    pub(super) size: Point,
    pub(super) shapes: Markup,
}

impl Drawing {
    /// For a page that has [`theme_css`].
    pub(super) fn inline(&self) -> Markup {
        self.element(None)
    }

    /// A document with its own style sheet.
    pub(super) fn standalone(&self) -> String {
        self.element(Some(theme_css())).into_string()
    }

    fn element(&self, css: Option<String>) -> Markup {
        let (width, height) = self.size;
        html! {
            svg width=(width) height=(height) role=(self.role) aria-label=(self.description)
                viewBox={ "0 0 " (width) " " (height) } xmlns="http://www.w3.org/2000/svg" {
                "\n"
                @if let Some(css) = css { style { (PreEscaped(css)) } "\n" }
                (self.shapes)
            }
            "\n"
        }
    }
}

/// To a hundredth of a pixel; 0 for what is no number.
pub(super) fn px(value: f64) -> f64 {
    if !value.is_finite() {
        return 0.0;
    }
    // Zero has no sign.
    (value * 100.0).round() / 100.0 + 0.0
}

/// Shapes that show a text where the pointer is.
pub(super) fn hinted(hint: &str, shapes: &Markup) -> Markup {
    html! { g { title { (hint) } "\n" (shapes) } "\n" }
}

/// Which end of a text is at its place.
#[derive(Debug, Clone, Copy)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// Text at the height of its middle; `size` in pixels.
pub(super) fn text(words: &str, at: Point, size: f64, colour: Colour, anchor: Anchor) -> Markup {
    turned(words, at, (size, colour, anchor), None)
}

/// Text that reads upwards.
pub(super) fn upright(words: &str, at: Point, size: f64, colour: Colour) -> Markup {
    let turn = format!("rotate(270, {}, {})", px(at.0), px(at.1));
    turned(words, at, (size, colour, Anchor::Middle), Some(turn))
}

/// Text that reads upwards and ends at a place.
pub(super) fn hanging(words: &str, at: Point, size: f64, colour: Colour) -> Markup {
    let turn = format!("rotate(270, {}, {})", px(at.0), px(at.1));
    turned(words, at, (size, colour, Anchor::End), Some(turn))
}

fn turned(
    words: &str,
    (x, y): Point,
    (size, colour, anchor): (f64, Colour, Anchor),
    turn: Option<String>,
) -> Markup {
    let anchor = match anchor {
        Anchor::Start => "start",
        Anchor::Middle => "middle",
        Anchor::End => "end",
    };
    html! {
        text x=(px(x)) y=(px(y)) dy="0.5ex" text-anchor=(anchor) transform=[turn]
            font-family="sans-serif" font-size=(size) fill=(colour.light) class=(colour.fill) { (words) }
        "\n"
    }
}

/// How a line is drawn; `width` in pixels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pen {
    colour: Colour,
    width: f64,
    dashes: Option<&'static str>,
}

impl Pen {
    pub(super) const fn new(colour: Colour, width: f64) -> Self {
        let dashes = None;
        Self {
            colour,
            width,
            dashes,
        }
    }

    pub(super) const fn dashed(self, dashes: Option<&'static str>) -> Self {
        Self { dashes, ..self }
    }
}

/// Points as an attribute.
fn written(points: &[Point]) -> String {
    let points = points.iter().map(|(x, y)| format!("{},{}", px(*x), px(*y)));
    points.collect::<Vec<_>>().join(" ")
}

/// A line through points.
pub(super) fn line(points: &[Point], pen: Pen) -> Markup {
    html! {
        polyline points=(written(points)) fill="none" stroke=(pen.colour.light) class=(pen.colour.stroke)
            stroke-width=(px(pen.width)) stroke-dasharray=[pen.dashes] stroke-linejoin="round" {}
        "\n"
    }
}

/// A line with a hint that is shown up to half of `reach` pixels beside it, too.
pub(super) fn hinted_line(hint: &str, points: &[Point], pen: Pen, reach: f64) -> Markup {
    let around = html! {
        polyline points=(written(points)) fill="none" stroke-width=(reach) pointer-events="stroke" {}
        "\n"
    };
    hinted(hint, &html! { (line(points, pen)) (around) })
}

/// A filled rectangle; `share` of full colour.
pub(super) fn cell((x, y): Point, (width, height): Point, colour: Colour, share: f64) -> Markup {
    html! {
        rect x=(px(x)) y=(px(y)) width=(px(width)) height=(px(height)) fill=(colour.light) class=(colour.fill)
            fill-opacity=[(share < 1.0).then(|| (share * 1000.0).round() / 1000.0)] {}
        "\n"
    }
}

/// The outline of a rectangle.
pub(super) fn frame((x, y): Point, (width, height): Point, pen: Pen) -> Markup {
    html! {
        rect x=(px(x)) y=(px(y)) width=(px(width)) height=(px(height)) fill="none" stroke=(pen.colour.light)
            class=(pen.colour.stroke) stroke-width=(px(pen.width)) {}
        "\n"
    }
}

/// A filled shape with these corners.
pub(super) fn polygon(points: &[Point], colour: Colour) -> Markup {
    html! {
        polygon points=(written(points)) fill=(colour.light) class=(colour.fill) {}
        "\n"
    }
}

/// A path that is not filled, as `d` says.
pub(super) fn path(d: &str, pen: Pen) -> Markup {
    html! {
        path d=(d) fill="none" stroke=(pen.colour.light) class=(pen.colour.stroke) stroke-width=(px(pen.width))
            stroke-dasharray=[pen.dashes] {}
        "\n"
    }
}

/// A box with round corners: filled with the ground, outlined by a pen.
pub(super) fn boxed((x, y): Point, (width, height): Point, radius: f64, pen: Pen) -> Markup {
    html! {
        rect x=(px(x)) y=(px(y)) width=(px(width)) height=(px(height)) rx=(px(radius)) fill=(ON_HEAT.light)
            class={ (ON_HEAT.fill) " " (pen.colour.stroke) } stroke=(pen.colour.light) stroke-width=(px(pen.width))
            stroke-dasharray=[pen.dashes] {}
        "\n"
    }
}

/// A filled circle.
pub(super) fn disc((x, y): Point, radius: f64, colour: Colour) -> Markup {
    html! {
        circle cx=(px(x)) cy=(px(y)) r=(px(radius)) fill=(colour.light) class=(colour.fill) {}
        "\n"
    }
}

/// The outline of a circle.
pub(super) fn ring((x, y): Point, radius: f64, pen: Pen) -> Markup {
    html! {
        circle cx=(px(x)) cy=(px(y)) r=(px(radius)) fill="none" stroke=(pen.colour.light)
            class=(pen.colour.stroke) stroke-width=(px(pen.width)) {}
        "\n"
    }
}

/// The mark of what was chosen: a dot on ground of its own.
pub(super) fn dot(centre: Point, radius: f64) -> Markup {
    html! { (disc(centre, radius, ON_HEAT)) (disc(centre, 0.75 * radius, MARK)) }
}

/// A name for use in a file name or an anchor.
pub(super) fn slug(name: &str) -> String {
    let keep = |letter: char| {
        if letter.is_ascii_alphanumeric() {
            letter.to_ascii_lowercase()
        } else {
            '-'
        }
    };
    name.chars().map(keep).collect()
}
