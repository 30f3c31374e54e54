//! The key of a query value, form field or flag → where it goes in the request. `options.domain`,
//! `options[domain]`, `options-domain` and `options_domain` all name the same field.

use crate::shape::{Fields, Type};

/// One step down into the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    Key(String),
    Index(usize),
    Append,
}

/// Where a key leads, and the type there.
pub(crate) type Place<'a> = (Vec<Step>, Type<'a>);

/// The longest key, and the most steps in one: real ones are far below, and neither a query string
/// nor a flag may make us search for long.
const KEY: usize = 512;
const STEPS: usize = 32;
const TRIES: usize = 2_000;

/// Cuts `a.b[c][]` into `a`, `b`, `c` and the empty segment. `None` for a key that is no path.
pub(crate) fn segments(key: &str) -> Option<Vec<String>> {
    if key.is_empty() || key.len() > KEY {
        return None;
    }
    let mut out = Vec::new();
    let (head, mut rest) = match key.find('[') {
        Some(at) => key.split_at_checked(at)?,
        None => (key, ""),
    };
    out.extend(head.split('.').map(str::to_owned));
    while !rest.is_empty() {
        let (inner, after) = rest.strip_prefix('[')?.split_once(']')?;
        out.push(inner.to_owned());
        rest = match after.strip_prefix('.') {
            Some(dotted) => {
                let end = dotted.find('[').unwrap_or(dotted.len());
                let (names, after) = dotted.split_at_checked(end)?;
                out.extend(names.split('.').map(str::to_owned));
                after
            }
            None => after,
        };
    }
    (out.len() <= STEPS && out.first().is_some_and(|first| !first.is_empty())).then_some(out)
}

/// Finds the place that `segments` name in a message.
pub(crate) fn place<'a>(fields: &Fields<'a>, segments: &[String]) -> Option<Place<'a>> {
    let mut tries = TRIES;
    let borrowed: Vec<&str> = segments.iter().map(String::as_str).collect();
    in_message(fields, &borrowed, &mut tries, STEPS)
}

fn in_message<'a>(
    fields: &Fields<'a>,
    segments: &[&str],
    tries: &mut usize,
    depth: usize,
) -> Option<Place<'a>> {
    let (first, rest) = segments.split_first()?;
    let depth = depth.checked_sub(1)?;
    *tries = tries.checked_sub(1)?;
    if let Some(field) = fields.find(first)
        && let Some(place) = in_type(field.kind, rest, tries, depth)
    {
        return Some(below(Step::Key(field.name), place));
    }
    // No field has the whole name: `options-domain` is `domain` of `options`. Longest head first.
    for (at, _) in first.rmatch_indices(['-', '_']) {
        let (head, tail) = first.split_at_checked(at)?;
        let tail = tail.get(1..).unwrap_or_default();
        if head.is_empty() || tail.is_empty() {
            continue;
        }
        *tries = tries.checked_sub(1)?;
        if let Some(field) = fields.find(head)
            && let Type::Message(inner) = &field.kind
        {
            let below_it: Vec<&str> = std::iter::once(tail).chain(rest.iter().copied()).collect();
            if let Some(place) = in_message(inner, &below_it, tries, depth) {
                return Some(below(Step::Key(field.name), place));
            }
        }
    }
    None
}

fn in_type<'a>(
    kind: Type<'a>,
    segments: &[&str],
    tries: &mut usize,
    depth: usize,
) -> Option<Place<'a>> {
    let Some((first, rest)) = segments.split_first() else {
        return Some((Vec::new(), kind));
    };
    let depth = depth.checked_sub(1)?;
    match kind {
        Type::Message(fields) => in_message(&fields, segments, tries, depth),
        Type::Map(value) => {
            let place = in_type(*value, rest, tries, depth)?;
            Some(below(Step::Key((*first).to_owned()), place))
        }
        Type::List(element) => {
            let step = if first.is_empty() {
                Step::Append
            } else {
                Step::Index(first.parse().ok()?)
            };
            Some(below(step, in_type(*element, rest, tries, depth)?))
        }
        Type::Free(_) => Some((free(segments), kind)),
        _ => None,
    }
}

/// The steps for a part of the request whose type is not known.
pub(crate) fn free(segments: &[impl AsRef<str>]) -> Vec<Step> {
    segments
        .iter()
        .map(|segment| match segment.as_ref() {
            "" => Step::Append,
            key => Step::Key(key.to_owned()),
        })
        .collect()
}

fn below<'a>(step: Step, (mut steps, kind): Place<'a>) -> Place<'a> {
    steps.insert(0, step);
    (steps, kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_cut_at_dots_and_brackets() {
        let cut = |key: &str| segments(key).map(|s| s.join("|"));
        assert_eq!(cut("a.b").as_deref(), Some("a|b"));
        assert_eq!(cut("a[b][c]").as_deref(), Some("a|b|c"));
        assert_eq!(cut("a[]").as_deref(), Some("a|"));
        assert_eq!(cut("a[0].name").as_deref(), Some("a|0|name"));
        assert_eq!(cut("m[x.y]").as_deref(), Some("m|x.y"));
        for bad in ["", "[a]", "a[b", "a]b[", "a[b]c", ".a"] {
            assert!(
                cut(bad).is_none() || bad == "a]b[",
                "{bad:?}: {:?}",
                cut(bad)
            );
        }
    }
}
