//! Outcome of a call, as the server states it.

use std::fmt;

use bytes::Bytes;

/// Bytes of the text of a status, sent or kept; the rest is cut.
pub const MAX_STATUS_TEXT_BYTES: usize = 512;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $text:literal;)+) => {
        /// Number of a status in a response (specification 02, section 8.2).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum StatusCode {
            $($(#[$doc])* $name,)+
            /// A number that this version does not know.
            Invalid(u32),
        }

        impl StatusCode {
            /// The number on the wire.
            #[must_use]
            pub const fn number(self) -> u32 {
                match self {
                    $(Self::$name => $number,)+
                    Self::Invalid(number) => number,
                }
            }

            /// The code of a number.
            #[must_use]
            pub const fn from_number(number: u32) -> Self {
                match number {
                    $($number => Self::$name,)+
                    _ => Self::Invalid(number),
                }
            }

            /// Name for logs and metrics.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                    Self::Invalid(_) => "invalid",
                }
            }
        }
    };
}

codes! {
    /// The call succeeded.
    Ok = 0, "ok";
    /// The request does not decode or breaks a rule of its method.
    BadRequest = 1, "bad_request";
    /// The service has no such method.
    UnsupportedMethod = 2, "unsupported_method";
    /// The method exists and does nothing yet.
    NotImplemented = 3, "not_implemented";
    /// The server did not finish within the deadline.
    Timeout = 4, "timeout";
    /// The response of the service cannot be sent.
    MalformedResponse = 5, "malformed_response";
    /// Any other failure.
    General = 6, "general";
    /// The thing asked for does not exist.
    NotFound = 7, "not_found";
    /// The request breaks the RPC protocol.
    ProtocolError = 8, "protocol_error";
    /// The caller may not do this.
    Forbidden = 9, "forbidden";
    /// The request contradicts the state of the server.
    Conflict = 10, "conflict";
}

/// Failure of a call, as the server states it. The text of a remote server is whatever it wrote: it is cut to
/// [`MAX_STATUS_TEXT_BYTES`], and displayed escaped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Status {
    /// Kind of failure.
    pub code: StatusCode,
    /// Explanation for people.
    pub text: String,
}

impl Status {
    /// A status with a text for people.
    #[must_use]
    pub fn new(code: StatusCode, text: impl Into<String>) -> Self {
        let mut text = text.into();
        text.truncate(text.floor_char_boundary(MAX_STATUS_TEXT_BYTES));
        Self { code, text }
    }

    /// A [`StatusCode::BadRequest`].
    #[must_use]
    pub fn bad_request(text: impl Into<String>) -> Self {
        Self::new(StatusCode::BadRequest, text)
    }

    /// The status of a response.
    pub(crate) fn from_response(number: u32, payload: &Bytes) -> Self {
        // Room for the bytes of one character that the cut may split.
        let kept = payload.slice(..payload.len().min(MAX_STATUS_TEXT_BYTES + 4));
        let code = StatusCode::from_number(number);
        Self::new(code, String::from_utf8_lossy(&kept))
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.name(), self.text.escape_debug())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_round_trip() {
        for number in 0..=11 {
            assert_eq!(StatusCode::from_number(number).number(), number);
        }
        assert_eq!(StatusCode::from_number(11), StatusCode::Invalid(11));
    }

    #[test]
    fn texts_are_cut_and_escaped() {
        let long = Bytes::from("é".repeat(MAX_STATUS_TEXT_BYTES));
        let status = Status::from_response(7, &long);
        assert_eq!(status.text.len(), MAX_STATUS_TEXT_BYTES);
        assert_eq!(status.code, StatusCode::NotFound);
        let hostile = Status::from_response(6, &Bytes::from_static(b"a\x1b[2J\xff\n"));
        assert_eq!(hostile.to_string(), "general: a\\u{1b}[2J\u{fffd}\\n");
    }
}
