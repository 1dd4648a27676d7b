//! The form that requests and answers share: a first line, then `Key: value` lines.
//!
//! Which keys there are, and what their values mean, is not known here.

/// Why bytes do not have the form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormError {
    /// More bytes than this many.
    #[error("it is larger than {0} bytes")]
    TooLarge(usize),
    /// No bytes at all.
    #[error("it is empty")]
    Empty,
    /// Not UTF-8.
    #[error("it is not UTF-8")]
    NotText,
    /// A control character other than the ends of lines.
    #[error("it holds a control character")]
    Control,
    /// The last line does not end: half a file.
    #[error("its last line has no end")]
    Unfinished,
    /// A line, counted from 1, that is no `Key: value`.
    #[error("its line {0} is not of the form `Key: value`")]
    NotAField(usize),
}

/// The lines of a file of this form.
pub(super) struct Form<'a> {
    bytes: &'a [u8],
    /// The first line.
    pub(super) first: &'a str,
    /// All others, in order.
    pub(super) fields: Vec<Field<'a>>,
}

/// One `Key: value` line.
pub(super) struct Field<'a> {
    /// Where its line begins, in bytes from the start of the file.
    offset: usize,
    pub(super) key: &'a str,
    pub(super) value: &'a str,
}

impl<'a> Form<'a> {
    /// Takes the form apart.
    pub(super) fn parse(bytes: &'a [u8], limit: usize) -> Result<Form<'a>, FormError> {
        if bytes.len() > limit {
            return Err(FormError::TooLarge(limit));
        }
        if bytes.is_empty() {
            return Err(FormError::Empty);
        }
        let text = str::from_utf8(bytes).map_err(|_| FormError::NotText)?;
        let body = text.strip_suffix('\n').ok_or(FormError::Unfinished)?;
        if body.chars().any(|c| c.is_control() && c != '\n') {
            return Err(FormError::Control);
        }
        let mut lines = body.split('\n');
        let first = lines.next().unwrap_or_default();
        let mut offset = first.len() + 1;
        let mut fields = Vec::new();
        for (number, line) in lines.enumerate() {
            let (key, value) = line.split_once(": ").ok_or(FormError::NotAField(number + 2))?;
            if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
                return Err(FormError::NotAField(number + 2));
            }
            fields.push(Field { offset, key, value });
            offset += line.len() + 1;
        }
        Ok(Form { bytes, first, fields })
    }

    /// All bytes before a field's line.
    pub(super) fn before(&self, field: &Field<'_>) -> &'a [u8] {
        self.bytes.get(..field.offset).unwrap_or(self.bytes)
    }
}
