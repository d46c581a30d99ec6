//! Breaks a file: from bits that flip to values that no program writes.

use super::dice::Dice;
use super::spans::{Kind, spans};

/// What a file is, as far as the ways to break it go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// JSON, or one object a line.
    Json,
    /// Lines of text, or a table.
    Lines,
    /// A header of JSON, then numbers.
    Safetensors,
    /// GGUF and pickles.
    Binary,
}

/// What stands in for a number.
const NUMBERS: [&str; 24] = [
    "0",
    "-1",
    "1",
    "2",
    "3",
    "7",
    "-0",
    "0.5",
    "1e-320",
    "1e38",
    "1e309",
    "-1e309",
    "65536",
    "1000000000",
    "2147483648",
    "4294967296",
    "9007199254740993",
    "9223372036854775807",
    "18446744073709551615",
    "18446744073709551616",
    "NaN",
    "Infinity",
    "null",
    "\"12\"",
];

/// What stands in for a string, its quotes left out.
const TEXTS: [&[u8]; 16] = [
    b"",
    b" ",
    b"\\u001b]0;OWNED\\u0007\\u001b[2J",
    b"\x1b[31mraw\x1b[0m",
    "\u{202e}gnp\u{2066}.exe\u{2069}".as_bytes(),
    b"a\\r\\nerror: all is well",
    b"\\u0000",
    b"\\ud800",
    b"\xff\xfe\xc3(",
    b"../../../../etc/passwd",
    b"/dev/zero",
    "ﷺ👩‍👩‍👧‍👦e\u{301}\u{302}\u{303}".as_bytes(),
    b"NaN",
    b"{}{{ x }}{% for",
    b"F32",
    b"BF16",
];

/// What stands in for any value.
const VALUES: [&str; 8] = ["null", "true", "[]", "{}", "[[]]", "\"\"", "[null]", "0"];

/// A broken copy of `bytes`: one to three changes.
pub(crate) fn mutate(bytes: &[u8], form: Form, dice: &mut Dice) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..=dice.below(3) {
        bytes = match form {
            Form::Json if !dice.one_in(4) => json(&bytes, dice),
            Form::Lines if !dice.one_in(3) => lines(&bytes, dice),
            Form::Safetensors if !dice.one_in(5) => safetensors(&bytes, dice),
            _ => raw(bytes, dice),
        };
        if dice.one_in(2) {
            break;
        }
    }
    bytes
}

/// Changes bytes without a look at what they mean.
fn raw(mut bytes: Vec<u8>, dice: &mut Dice) -> Vec<u8> {
    if bytes.is_empty() {
        return TEXTS[dice.below(TEXTS.len())].to_vec();
    }
    // What says how the rest is read stands at the beginning of most files.
    let near = if dice.one_in(2) {
        bytes.len().min(2048)
    } else {
        bytes.len()
    };
    match dice.below(10) {
        0 => {
            for _ in 0..=dice.below(8) {
                let at = dice.below(near);
                bytes[at] ^= 1 << dice.below(8);
            }
        }
        1 => {
            let at = dice.below(near);
            let new: Vec<u8> = (0..=dice.below(8)).map(|_| dice.byte()).collect();
            bytes.splice(at..at, new);
        }
        2 => {
            let gone = dice.range(near, 64);
            bytes.drain(gone);
        }
        3 => bytes.truncate(dice.below(near + 1)),
        4 => {
            let chunk = bytes[dice.range(near, 256)].to_vec();
            let at = dice.below(near);
            let times = [1, 2, 1000][dice.below(3)];
            bytes.splice(at..at, chunk.repeat(times));
        }
        5 => {
            let at = dice.below(near);
            bytes.splice(at..at, TEXTS[dice.below(TEXTS.len())].iter().copied());
        }
        6 => {
            // A whole number, as headers of binary files have them.
            let number = [
                0,
                1,
                u64::from(u32::MAX),
                u64::MAX,
                1 << 31,
                1 << 40,
                1 << 62,
            ][dice.below(7)];
            let size = [4, 8][dice.below(2)];
            let at = dice.below(near);
            for (place, new) in bytes[at..].iter_mut().zip(&number.to_le_bytes()[..size]) {
                *place = *new;
            }
        }
        7 => {
            let with = dice.byte();
            for place in dice.range(near, 64) {
                bytes[place] = with;
            }
        }
        8 => {
            let (a, b) = (dice.below(near), dice.below(near));
            bytes.swap(a, b);
        }
        _ => match dice.below(4) {
            0 => bytes.clear(),
            1 => drop(bytes.splice(0..0, *b"\xef\xbb\xbf")),
            2 => bytes.extend_from_slice(b"\0"),
            _ => bytes.extend(bytes.clone()),
        },
    }
    bytes
}

/// Changes lines, and numbers within them.
fn lines(bytes: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut lines: Vec<Vec<u8>> = bytes.split(|byte| *byte == b'\n').map(Vec::from).collect();
    let at = dice.below(lines.len());
    match dice.below(9) {
        0 => {
            let other = dice.below(lines.len());
            lines.swap(at, other);
        }
        1 => drop(lines.remove(at)),
        2 => {
            let line = lines[at].clone();
            lines.insert(at, line);
        }
        3 => lines[at].push(b'\r'),
        4 => lines[at] = raw(lines[at].clone(), dice),
        5 => lines[at].clear(),
        6 => lines[at].extend(std::iter::repeat_n(b'a', [100, 100_000][dice.below(2)])),
        7 => {
            let fields: Vec<&[u8]> = lines[at].split(|byte| *byte == b',').collect();
            let new = TEXTS[dice.below(TEXTS.len())];
            let which = dice.below(fields.len());
            let fields = fields.iter().enumerate();
            let fields: Vec<&[u8]> = fields
                .map(|(i, field)| if i == which { new } else { *field })
                .collect();
            lines[at] = fields.join(&b","[..]);
        }
        _ => return json(bytes, dice),
    }
    lines.join(&b"\n"[..])
}

/// Changes a value, a key or what a list or an object has.
fn json(bytes: &[u8], dice: &mut Dice) -> Vec<u8> {
    let found = spans(bytes);
    if found.is_empty() {
        return raw(bytes.to_vec(), dice);
    }
    let span = &found[dice.below(found.len())];
    let old = &bytes[span.bytes.clone()];
    let quoted = |text: &[u8]| [b"\"", text, b"\""].concat();
    let new: Vec<u8> = match dice.below(10) {
        0 => nested(dice),
        1 => VALUES[dice.below(VALUES.len())].into(),
        2 => {
            // Another value of the same text.
            let other = &found[dice.below(found.len())];
            bytes[other.bytes.clone()].to_vec()
        }
        3 => {
            // Out of its list or object, with the comma after it; of a member the key stays or goes alone.
            let mut bytes = bytes.to_vec();
            let mut gone = span.bytes.clone();
            if bytes.get(gone.end) == Some(&b',') {
                gone.end += 1;
            }
            bytes.drain(gone);
            return bytes;
        }
        4 => [old, b", ", old].concat(),
        _ => match span.kind {
            Kind::Number => NUMBERS[dice.below(NUMBERS.len())].into(),
            Kind::Text | Kind::Key if dice.one_in(8) => quoted(&b"a".repeat(1_000_000)),
            Kind::Text | Kind::Key if dice.one_in(4) => {
                quoted(&raw(old[1..old.len().max(2) - 1].to_vec(), dice))
            }
            Kind::Text | Kind::Key => quoted(TEXTS[dice.below(TEXTS.len())]),
            Kind::Word => {
                [&b"true"[..], b"false", b"null", b"1", b"\"true\""][dice.below(5)].into()
            }
            Kind::List if dice.one_in(2) => {
                // The list, its members many times.
                let inner = &old[1..old.len() - 1];
                let times = if inner.len() < 100 { 10_000 } else { 3 };
                [b"[", vec![inner; times].join(&b","[..]).as_slice(), b"]"].concat()
            }
            Kind::List | Kind::Map => VALUES[dice.below(VALUES.len())].into(),
        },
    };
    let mut bytes = bytes.to_vec();
    bytes.splice(span.bytes.clone(), new);
    bytes
}

fn nested(dice: &mut Dice) -> Vec<u8> {
    let depth = [100, 1000, 100_000][dice.below(3)];
    let (open, close) = [("[", "]"), ("{\"a\":", "}")][dice.below(2)];
    let close = if dice.one_in(2) { close } else { "" };
    [&open.repeat(depth), "1", &close.repeat(depth)]
        .concat()
        .into()
}

/// Changes the header, with its length beside it or not, or the numbers.
fn safetensors(bytes: &[u8], dice: &mut Dice) -> Vec<u8> {
    let (Some(length), Some(rest)) = (bytes.first_chunk::<8>(), bytes.get(8..)) else {
        return raw(bytes.to_vec(), dice);
    };
    let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX);
    if length > rest.len() {
        return raw(bytes.to_vec(), dice);
    }
    let (header, data) = rest.split_at(length);
    match dice.below(8) {
        0 => {
            let wrong = [
                0,
                1,
                7,
                u64::MAX,
                1 << 40,
                length as u64 + 1,
                (length as u64).wrapping_sub(1),
            ];
            let wrong = wrong[dice.below(wrong.len())];
            [&wrong.to_le_bytes()[..], rest].concat()
        }
        1 | 2 => {
            let mut data = data.to_vec();
            numbers(&mut data, dice);
            [&bytes[..8 + length], &data].concat()
        }
        3 => {
            let mut data = data.to_vec();
            data.truncate(dice.below(data.len() + 1));
            [&bytes[..8 + length], &data].concat()
        }
        kind => {
            let header = match kind {
                4 => shapes(header, dice),
                _ => json(header, dice),
            };
            let length = (header.len() as u64).to_le_bytes();
            [&length[..], &header, data].concat()
        }
    }
}

/// Writes extreme numbers among `data`, taken for f32.
fn numbers(data: &mut [u8], dice: &mut Dice) {
    const EXTREME: [f32; 9] = [
        f32::NAN,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::MAX,
        1e30,
        f32::MIN_POSITIVE / 8.0,
        0.0,
        -0.0,
        1.0,
    ];
    let new = EXTREME[dice.below(EXTREME.len())].to_le_bytes();
    let cells = data.len() / 4;
    let changed = match dice.below(3) {
        0 => 0..cells,
        1 => dice.range(cells.max(1), 1),
        _ => dice.range(cells.max(1), 64),
    };
    for cell in changed {
        if let Some(place) = data.get_mut(cell * 4..cell * 4 + 4) {
            place.copy_from_slice(&new);
        }
    }
}

/// Other shapes of the same number of elements, or of another number.
fn shapes(header: &[u8], dice: &mut Dice) -> Vec<u8> {
    let lists: Vec<_> = spans(header)
        .into_iter()
        .filter(|span| span.kind == Kind::List)
        .collect();
    if lists.is_empty() {
        return json(header, dice);
    }
    let span = lists[dice.below(lists.len())].bytes.clone();
    let inner = String::from_utf8_lossy(&header[span.start + 1..span.end - 1]).into_owned();
    let mut sizes: Vec<&str> = inner.split(',').map(str::trim).collect();
    match dice.below(5) {
        0 => sizes.reverse(),
        1 => sizes.insert(0, "1"),
        2 => drop(sizes.pop()),
        3 => sizes.push("0"),
        _ => {
            let at = dice.below(sizes.len());
            sizes[at] = NUMBERS[dice.below(NUMBERS.len())];
        }
    }
    let mut header = header.to_vec();
    header.splice(span, format!("[{}]", sizes.join(",")).into_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use circuitscope_core::Seed;

    const TEXT: &[u8] = b"{\"a\": [1, 2], \"b\": \"c\"}\n{\"a\": [3], \"b\": \"\"}\n";

    fn many(seed: u64, bytes: &[u8], form: Form) -> Vec<Vec<u8>> {
        let dice = |i| Dice::new(Seed::new(seed), "test", i);
        (0..500)
            .map(|i| mutate(bytes, form, &mut dice(i)))
            .collect()
    }

    #[test]
    fn the_same_seed_breaks_the_same_way() {
        for form in [Form::Json, Form::Lines, Form::Safetensors, Form::Binary] {
            assert_eq!(many(1, TEXT, form), many(1, TEXT, form));
            assert_ne!(many(1, TEXT, form), many(2, TEXT, form));
        }
    }

    #[test]
    fn nearly_every_mutant_differs() {
        let header = br#"{"w":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]}}"#;
        let length = (header.len() as u64).to_le_bytes();
        let file = [&length[..], header, &[0; 8]].concat();
        for (bytes, form) in [
            (TEXT, Form::Json),
            (TEXT, Form::Lines),
            (&file, Form::Safetensors),
        ] {
            let changed = many(0, bytes, form)
                .iter()
                .filter(|new| *new != bytes)
                .count();
            assert!(changed > 400, "{form:?}: {changed} of 500");
        }
    }

    #[test]
    fn nothing_is_too_short_to_break() {
        for bytes in [
            &b""[..],
            b"1",
            b"\"",
            b"[",
            b"12345678",
            b"\0\0\0\0\0\0\0\0",
        ] {
            for form in [Form::Json, Form::Lines, Form::Safetensors, Form::Binary] {
                many(3, bytes, form);
            }
        }
    }
}
