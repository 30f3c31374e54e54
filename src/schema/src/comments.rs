//! Comments of `.proto` files, found by the path of what they stand beside.

use prost_types::{FileDescriptorProto, source_code_info::Location};

/// The comment before (or else behind) the element at `path`, its lines trimmed.
pub(crate) fn of(file: &FileDescriptorProto, path: &[i32]) -> String {
    let Some(info) = &file.source_code_info else {
        return String::new();
    };
    info.location
        .iter()
        .find(|location| location.path == path)
        .map_or_else(String::new, text)
}

fn text(location: &Location) -> String {
    let comment = match (&location.leading_comments, &location.trailing_comments) {
        (Some(text), _) if !text.trim().is_empty() => text,
        (_, Some(text)) => text,
        _ => return String::new(),
    };
    let lines: Vec<&str> = comment.lines().map(str::trim).collect();
    lines.join("\n").trim().to_owned()
}
