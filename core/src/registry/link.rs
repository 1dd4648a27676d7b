//! Where a list in pages goes on, by the `Link` header (RFC 8288, section 3).

use reqwest::header::{HeaderMap, LINK};

/// The target of the first link whose relations have "next" among them.
pub(super) fn next_page(headers: &HeaderMap) -> Option<&str> {
    headers.get_all(LINK).iter().filter_map(|value| value.to_str().ok()).find_map(next_in)
}

/// As [`next_page`], of one header. What is no link ends it: nothing tells where the next would begin.
fn next_in(mut rest: &str) -> Option<&str> {
    loop {
        // A target may hold commas and semicolons, so it comes first.
        let (target, after) = rest.trim_start_matches([' ', '\t', ',']).strip_prefix('<')?.split_once('>')?;
        let (parameters, others) = cut(after, ',');
        if leads_on(parameters) {
            return Some(target);
        }
        rest = others;
    }
}

/// Whether the relations of a link have "next" among them. Of several `rel` the first counts (section 3.3).
fn leads_on(mut parameters: &str) -> bool {
    while !parameters.is_empty() {
        let (parameter, others) = cut(parameters, ';');
        if let Some((name, value)) = parameter.split_once('=')
            && name.trim().eq_ignore_ascii_case("rel")
        {
            let relations = value.trim().trim_matches('"').split_ascii_whitespace();
            return relations.into_iter().any(|relation| relation.eq_ignore_ascii_case("next"));
        }
        parameters = others;
    }
    false
}

/// The text before a character that is in no quotes, and the text after it.
fn cut(text: &str, at: char) -> (&str, &str) {
    let (mut quoted, mut escaped) = (false, false);
    let found = text.char_indices().find(|(_, letter)| {
        let is_escaped = std::mem::replace(&mut escaped, false);
        match letter {
            '\\' if quoted && !is_escaped => escaped = true,
            '"' if !is_escaped => quoted = !quoted,
            letter => return *letter == at && !quoted,
        }
        false
    });
    found
        .and_then(|(end, _)| text.split_at_checked(end))
        .map_or((text, ""), |(before, after)| (before, after.strip_prefix(at).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::header::HeaderValue;

    fn next(values: &[&str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(LINK, HeaderValue::from_str(value).unwrap());
        }
        next_page(&headers).map(str::to_owned)
    }

    #[test]
    fn a_list_goes_on_where_its_link_says() {
        for value in [
            "</p?a=1>; rel=next",
            r#"</p?a=1>; rel="next""#,
            r#"</p?a=1>;rel="next""#,
            r#"</p?a=1> ; rel = "next""#,
            r#"</p?a=1>; REL="NEXT""#,
            r#"</p?a=1>; rel="next last""#,
            r#"</p?a=1>; rel="last  next""#,
            r#"</p?a=1>; title="a, b; c"; rel=next"#,
            r#"</p?a=1>; title="a\", <x>; rel=last"; rel=next"#,
            r#"<x,y>; rel=last, </p?a=1>; rel=next"#,
            r#"<x;y>; rel="prev", , </p?a=1>; rel="next", <z>; rel=next"#,
            "</p?a=1>;; x; rel=next",
        ] {
            assert_eq!(next(&[value]).as_deref(), Some("/p?a=1"), "{value}");
        }
        assert_eq!(next(&["<a,b>; rel=next"]).as_deref(), Some("a,b"));
        assert_eq!(next(&["<a;rel=last>; rel=next"]).as_deref(), Some("a;rel=last"));
        assert_eq!(next(&["x", "<a>; rel=next"]).as_deref(), Some("a"), "each header for itself");
    }

    #[test]
    fn nothing_else_leads_on() {
        for (defect, value) in [
            ("nothing", ""),
            ("no target", "rel=next"),
            ("a target without its end", "<a; rel=next"),
            ("a target without brackets", "a; rel=next"),
            ("no relation", "<a>"),
            ("another relation", "<a>; rel=last"),
            ("a relation that begins like it", "<a>; rel=nextpage"),
            ("a parameter that ends like it", "<a>; xrel=next"),
            ("in a title", r#"<a>; title="; rel=next""#),
            ("in a target", "<a; rel=next>; rel=last"),
            ("in a target after a comma", "<a,<b>; rel=last"),
            ("a second rel", "<a>; rel=last; rel=next"),
            ("of another link", "<a>, b; rel=next"),
        ] {
            assert_eq!(next(&[value]), None, "{defect}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_found_is_a_target(value in "[ a<>,;=\"\\\\]{0,12}(<b>; rel=next)?[ a<>,;=\"\\\\]{0,12}") {
            if let Some(target) = next(&[&value]) {
                proptest::prop_assert!(value.contains(&format!("<{target}>")), "{target} of {value}");
            }
        }
    }
}
