//! From what the plotting library writes to what a page and a file need.

use plotters::prelude::*;

use crate::{Error, Result};

/// Units of a drawing per pixel: the library rounds to whole units, so curves need finer ones.
pub(super) const UNIT: i32 = 8;

/// Colours as drawn. Each is also a class that the style sheet overrides, so that dark pages show
/// other ones; a viewer without style sheets shows these.
pub(super) const INK: RGBColor = RGBColor(0x1f, 0x23, 0x28);
pub(super) const MUTED: RGBColor = RGBColor(0x65, 0x6d, 0x76);
pub(super) const GRID: RGBColor = RGBColor(0xd8, 0xde, 0xe4);
pub(super) const HEAT: RGBColor = RGBColor(0x1d, 0x4e, 0xd8);
pub(super) const MARK: RGBColor = RGBColor(0xe8, 0x59, 0x0c);
pub(super) const ON_HEAT: RGBColor = RGBColor(0xff, 0xff, 0xfe);
/// Of methods, told apart by people who see colours differently too. After the last it starts again,
/// with other dashes ([`line_round`]).
const LINES: [RGBColor; 8] = [
    RGBColor(0x1d, 0x4e, 0xd9),
    RGBColor(0x08, 0x91, 0xb2),
    RGBColor(0xd9, 0x46, 0x0b),
    RGBColor(0x15, 0x80, 0x3d),
    RGBColor(0xa2, 0x1c, 0xaf),
    RGBColor(0x78, 0x71, 0x6c),
    RGBColor(0xb4, 0x53, 0x09),
    RGBColor(0x4c, 0x1d, 0x95),
];

/// How often the colours can start again before dashes repeat, too.
const ROUNDS: usize = 4;

/// The colour of the `at`-th method, as drawn: hardly another one in each round, so that every method
/// has a class of its own.
pub(super) const fn line_colour(at: usize) -> RGBColor {
    let RGBColor(red, green, blue) = LINES[at % LINES.len()];
    RGBColor(red, green + line_round(at) as u8, blue)
}

/// How often the colours started again before the `at`-th method.
pub(super) const fn line_round(at: usize) -> usize {
    at / LINES.len() % ROUNDS
}

/// A colour of drawings: as drawn, its class, and its value on light and on dark ground.
struct Themed {
    drawn: RGBColor,
    class: &'static str,
    light: &'static str,
    dark: &'static str,
}

const fn themed(
    drawn: RGBColor,
    class: &'static str,
    light: &'static str,
    dark: &'static str,
) -> Themed {
    Themed {
        drawn,
        class,
        light,
        dark,
    }
}

const THEME: [Themed; 14] = [
    themed(INK, "ink", "#1f2328", "#e6edf3"),
    themed(MUTED, "muted", "#656d76", "#9198a1"),
    themed(GRID, "grid", "#d8dee4", "#30363d"),
    themed(HEAT, "heat", "#1d4ed8", "#58a6ff"),
    themed(MARK, "mark", "#e8590c", "#ff922b"),
    themed(ON_HEAT, "onheat", "#ffffff", "#0d1117"),
    themed(LINES[0], "l0", "#1d4ed8", "#58a6ff"),
    themed(LINES[1], "l1", "#0891b2", "#22d3ee"),
    themed(LINES[2], "l2", "#d9460b", "#ff922b"),
    themed(LINES[3], "l3", "#15803d", "#3fb950"),
    themed(LINES[4], "l4", "#a21caf", "#e879f9"),
    themed(LINES[5], "l5", "#78716c", "#a8a29e"),
    themed(LINES[6], "l6", "#b45309", "#facc15"),
    themed(LINES[7], "l7", "#4c1d95", "#c4b5fd"),
];

/// The class of the colour of the `at`-th method.
pub(super) fn line_class(at: usize) -> &'static str {
    THEME[THEME.len() - LINES.len() + at % LINES.len()].class
}

/// The class of its curve alone: [`line_class`] in the first round.
pub(super) fn curve_class(at: usize) -> String {
    let round = match line_round(at) {
        0 => String::new(),
        round => format!(" s-round{round}"),
    };
    format!("s-{}{round}", line_class(at))
}

/// Rules for the classes, light and dark.
pub(super) fn theme_css() -> String {
    let mut css =
        String::from("svg text{font-family:system-ui,-apple-system,'Segoe UI',sans-serif}");
    let rules = |value: fn(&Themed) -> &'static str| {
        THEME.iter().fold(String::new(), |mut css, colour| {
            let (class, value) = (colour.class, value(colour));
            put!(
                css,
                ".f-{class}{{fill:{value}}}.s-{class}{{stroke:{value}}}"
            );
            css
        })
    };
    css.push_str(&rules(|colour| colour.light));
    put!(
        css,
        "@media (prefers-color-scheme:dark){{{}}}",
        rules(|colour| colour.dark)
    );
    put!(css, "@media print{{{}}}", rules(|colour| colour.light));
    css
}

/// A picture, before it is put into a page or a file.
#[derive(Debug)]
pub(super) struct Drawing {
    pub(super) file_name: String,
    svg: String,
}

/// An invisible shape that shows a text where the pointer is.
pub(super) struct Hint {
    /// A shape element without its end, such as `<rect x="1" …`.
    pub(super) shape: String,
    pub(super) text: String,
}

/// Draws a picture of `size` pixels; `draw` works in [`UNIT`]s of a pixel and returns its hints.
/// `description` is what a screen reader says.
pub(super) fn drawing(
    file_name: String,
    description: &str,
    size: (u32, u32),
    draw: impl FnOnce(
        &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    ) -> Result<Vec<Hint>, Box<dyn core::error::Error>>,
) -> Result<Drawing> {
    let unit = UNIT.unsigned_abs();
    let mut raw = String::new();
    let hints = {
        let area =
            SVGBackend::with_string(&mut raw, (size.0 * unit, size.1 * unit)).into_drawing_area();
        let hints = draw(&area);
        hints.and_then(|hints| {
            area.present()?;
            Ok(hints)
        })
    };
    let hints = hints.map_err(|error| Error::Picture {
        picture: file_name.clone(),
        reason: error.to_string(),
    })?;
    let svg = finish(&raw, description, size, &hints);
    Ok(Drawing { file_name, svg })
}

/// Gives the picture its size in pixels, its description, its classes and its hints.
fn finish(raw: &str, description: &str, size: (u32, u32), hints: &[Hint]) -> String {
    let unit = UNIT.unsigned_abs();
    let (wide, high) = (size.0 * unit, size.1 * unit);
    let mut svg = raw.replacen(
        &format!("<svg width=\"{wide}\" height=\"{high}\""),
        &format!(
            "<svg width=\"{}\" height=\"{}\" role=\"img\" aria-label=\"{}\"",
            size.0,
            size.1,
            escape(description)
        ),
        1,
    );
    for Themed {
        drawn,
        class,
        light,
        ..
    } in &THEME
    {
        let drawn = format!("#{:02X}{:02X}{:02X}", drawn.0, drawn.1, drawn.2);
        for (attribute, letter) in [("fill", 'f'), ("stroke", 's')] {
            svg = svg.replace(
                &format!("{attribute}=\"{drawn}\""),
                &format!("{attribute}=\"{light}\" class=\"{letter}-{class}\""),
            );
        }
    }
    for at in LINES.len()..LINES.len() * ROUNDS {
        let RGBColor(red, green, blue) = line_colour(at);
        let light = THEME[THEME.len() - LINES.len() + at % LINES.len()].light;
        svg = svg.replace(
            &format!("stroke=\"#{red:02X}{green:02X}{blue:02X}\""),
            &format!("stroke=\"{light}\" class=\"{}\"", curve_class(at)),
        );
    }
    svg = svg.replace(" opacity=\"1\"", "");
    if let Some(end) = svg.rfind("</svg>") {
        let mut tail = String::new();
        for Hint { shape, text } in hints {
            putln!(
                tail,
                "{shape}><title>{}</title></{}>",
                escape(text),
                tag(shape)
            );
        }
        svg.insert_str(end, &tail);
    }
    svg
}

fn tag(shape: &str) -> &str {
    shape
        .trim_start_matches('<')
        .split(' ')
        .next()
        .unwrap_or_default()
}

impl Drawing {
    /// Dashes all lines whose class attribute is this.
    pub(super) fn dash(&mut self, class: &str, dashes: &str) {
        let class = format!("class=\"{class}\"");
        self.svg = self
            .svg
            .replace(&class, &format!("{class} stroke-dasharray=\"{dashes}\""));
    }

    /// Lets lines turn and end round.
    pub(super) fn round_lines(&mut self) {
        self.svg = self.svg.replace(
            "<polyline fill=\"none\"",
            "<polyline fill=\"none\" stroke-linejoin=\"round\"",
        );
    }

    /// For a page that has [`theme_css`].
    pub(super) fn inline(&self) -> &str {
        &self.svg
    }

    /// A document with its own style sheet.
    pub(super) fn standalone(&self) -> String {
        let style = format!("<style>{}</style>\n", theme_css());
        let mut svg = self.svg.clone();
        if let Some(start) = svg.find(">\n") {
            svg.insert_str(start + 2, &style);
        }
        svg
    }
}

/// Text for HTML and XML, inside elements and attributes.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
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

/// Text in the style of all pictures; `size` in pixels.
pub(super) fn text(
    size: i32,
    colour: RGBColor,
    horizontal: HPos,
    vertical: VPos,
) -> TextStyle<'static> {
    let mut style = TextStyle::from(("sans-serif", size * UNIT).into_font());
    style.color = colour.to_backend_color();
    style.pos = Pos::new(horizontal, vertical);
    style
}

pub(super) use plotters::style::text_anchor::{HPos, Pos, VPos};
