use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Value, context};
use minijinja_contrib::pycompat::unknown_method_callback;

use super::ChatPrompt;

/// A conversation of one message of the user, up to where the model's answer begins, in the environment that
/// transformers gives to chat templates: blocks trimmed, Python's string methods, `raise_exception`,
/// `strftime_now`, `tojson` as Python's `json.dumps`.
pub(super) fn render<'t>(
    template: &str,
    special_tokens: impl Iterator<Item = (&'t str, &'t str)>,
    message: &str,
) -> Result<ChatPrompt, String> {
    let date = Arc::new(Mutex::new(None));
    let mut jinja = Environment::new();
    let syntax = SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .build();
    jinja.set_syntax(syntax.map_err(|error| error.to_string())?);
    jinja.set_unknown_method_callback(unknown_method_callback);
    jinja.add_function("raise_exception", |message: String| {
        Err::<Value, _>(Error::new(ErrorKind::InvalidOperation, message))
    });
    jinja.add_filter("tojson", tojson);
    let said = Arc::clone(&date);
    jinja.add_function("strftime_now", move |format: String| {
        let text = strftime(&format, seconds_now());
        if let Ok(mut said) = said.lock() {
            *said = Some(text.clone());
        }
        text
    });
    let special = special_tokens.map(|(name, token)| (name.to_owned(), Value::from(token)));
    let special: BTreeMap<String, Value> = special.collect();
    let variables = context! {
        messages => vec![context! { role => "user", content => message }],
        add_generation_prompt => true,
        tools => Value::from(()),
        documents => Value::from(()),
        ..Value::from(special)
    };
    let source = without_generation_tags(template);
    let rendered = jinja
        .template_from_str(&source)
        .and_then(|template| template.render(variables));
    let text = rendered.map_err(|error| error.to_string())?;
    let date = date.lock().ok().and_then(|mut date| date.take());
    Ok(ChatPrompt { text, date })
}

/// `{% generation %}` marks what a model is trained on and prints its body, as `{% if true %}` does.
fn without_generation_tags(template: &str) -> String {
    let mut text = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at + 2);
        text.push_str(before);
        let Some(end) = tag.find("%}") else {
            rest = tag;
            break;
        };
        let (inside, after) = tag.split_at(end);
        let name = inside.trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+');
        match name {
            "generation" => text.push_str(&inside.replace(name, "if true")),
            "endgeneration" => text.push_str(&inside.replace(name, "endif")),
            _ => text.push_str(inside),
        }
        rest = after;
    }
    text.push_str(rest);
    text
}

/// As `json.dumps(…, ensure_ascii=False)`: with a space after commas and colons, or indented.
#[expect(
    clippy::needless_pass_by_value,
    reason = "filters take their named arguments by value"
)]
fn tojson(value: &Value, indent: Option<usize>, options: Kwargs) -> Result<Value, Error> {
    let indent = indent.or(options.get("indent")?);
    let ascii: Option<bool> = options.get("ensure_ascii")?;
    options.assert_all_used()?;
    if ascii == Some(true) {
        let reason = "tojson with ensure_ascii=true";
        return Err(Error::new(ErrorKind::InvalidOperation, reason));
    }
    let mut text = String::new();
    dump(value, indent, 0, &mut text)?;
    Ok(Value::from_safe_string(text))
}

fn dump(value: &Value, indent: Option<usize>, depth: usize, out: &mut String) -> Result<(), Error> {
    let brackets = match value.kind() {
        ValueKind::Seq | ValueKind::Iterable => ['[', ']'],
        ValueKind::Map => ['{', '}'],
        _ => {
            let scalar = serde_json::to_string(value);
            let scalar = scalar
                .map_err(|error| Error::new(ErrorKind::BadSerialization, error.to_string()))?;
            out.push_str(&scalar);
            return Ok(());
        }
    };
    let line = |depth: usize, out: &mut String| {
        if let Some(indent) = indent {
            out.push('\n');
            out.push_str(&" ".repeat(indent * depth));
        }
    };
    out.push(brackets[0]);
    let mut any = false;
    for item in value.try_iter()? {
        if any {
            out.push_str(if indent.is_some() { "," } else { ", " });
        }
        any = true;
        line(depth + 1, out);
        if value.kind() == ValueKind::Map {
            dump(&Value::from(item.to_string()), indent, 0, out)?;
            out.push_str(": ");
            dump(&value.get_item(&item)?, indent, depth + 1, out)?;
        } else {
            dump(&item, indent, depth + 1, out)?;
        }
    }
    if any {
        line(depth, out);
    }
    out.push(brackets[1]);
    Ok(())
}

/// Seconds since 1970 began, in UTC.
fn seconds_now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_secs())
}

/// The directives of C's `strftime` that name parts of a date or a time of day, in English; others stay as they are.
fn strftime(format: &str, seconds: u64) -> String {
    const MONTHS: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    const DAYS: [&str; 7] = [
        "Thursday",
        "Friday",
        "Saturday",
        "Sunday",
        "Monday",
        "Tuesday",
        "Wednesday",
    ];
    let (days, time) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (time / 3600, time / 60 % 60, time % 60);
    let month_name = MONTHS[month as usize - 1];
    let day_name = DAYS[(days % 7) as usize];
    let mut text = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            text.push(c);
            continue;
        }
        let mut directive = chars.next();
        let plain = directive == Some('-');
        if plain {
            directive = chars.next();
        }
        let two = |number: u64| {
            if plain {
                number.to_string()
            } else {
                format!("{number:02}")
            }
        };
        let part = match directive {
            Some('Y') => year.to_string(),
            Some('y') => two(year % 100),
            Some('m') => two(month),
            Some('B') => month_name.to_owned(),
            Some('b' | 'h') => month_name[..3].to_owned(),
            Some('d') => two(day),
            Some('e') => format!("{day:2}"),
            Some('A') => day_name.to_owned(),
            Some('a') => day_name[..3].to_owned(),
            Some('H') => two(hour),
            Some('I') => two((hour + 11) % 12 + 1),
            Some('p') => if hour < 12 { "AM" } else { "PM" }.to_owned(),
            Some('M') => two(minute),
            Some('S') => two(second),
            Some('F') => format!("{year}-{month:02}-{day:02}"),
            Some('T') => format!("{hour:02}:{minute:02}:{second:02}"),
            Some('%') | None => "%".to_owned(),
            Some(other) => format!("%{other}"),
        };
        text.push_str(&part);
    }
    text
}

/// Year, month and day of a number of days since 1970 began (Howard Hinnant, "chrono-compatible low-level date
/// algorithms", `civil_from_days`).
const fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year + era * 400 + if month <= 2 { 1 } else { 0 };
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::{civil, strftime};

    /// Python: `datetime.fromtimestamp(s, UTC).strftime(…)`.
    #[test]
    fn dates_as_python_writes_them() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(19_782), (2024, 2, 29));
        let seconds = 1_709_210_096;
        assert_eq!(strftime("%d %b %Y", seconds), "29 Feb 2024");
        assert_eq!(
            strftime("%A, %B %-d, %y %I:%M %p", seconds),
            "Thursday, February 29, 24 12:34 PM"
        );
        assert_eq!(strftime("%F %T %% %Q", seconds), "2024-02-29 12:34:56 % %Q");
    }
}
