//! How a controller authenticates itself (control-spec, sections 3.5, 3.21 and 3.24).

use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use rand_core::CryptoRng;
use ring::hmac;
use tokio::io::{AsyncRead, AsyncWrite};
use zeroize::Zeroizing;

use crate::{control::Control, error::ControlError, reply::Reply};

const COOKIE_BYTES: usize = 32;
/// Longest password in bytes.
const MAX_PASSWORD_BYTES: usize = 1024;
const SERVER_KEY: &[u8] = b"Tor safe cookie authentication server-to-controller hash";
const CONTROLLER_KEY: &[u8] = b"Tor safe cookie authentication controller-to-server hash";

/// What the controller of a Tor proves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Authentication {
    /// What Tor asks for: SAFECOOKIE with the file that Tor names, or nothing. A cookie is never sent as it is: what
    /// answers at the control port could name any file of 32 bytes.
    #[default]
    Auto,
    /// The cookie in this file: by SAFECOOKIE, or as it is to a Tor that offers nothing else.
    Cookie(PathBuf),
    /// The password in this file, its first line.
    Password(PathBuf),
}

/// What PROTOCOLINFO says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Offer {
    methods: Vec<String>,
    cookie: Option<PathBuf>,
}

type Cookie = Zeroizing<Vec<u8>>;

impl Authentication {
    /// Authenticates a new connection.
    pub(crate) async fn perform<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        control: &mut Control<S>,
        rng: &mut impl CryptoRng,
    ) -> Result<(), ControlError> {
        let offer = Offer::of(&control.request("PROTOCOLINFO", " 1").await?)?;
        let proof = match self {
            Self::Password(path) => {
                let password = read(path.clone(), MAX_PASSWORD_BYTES).await?;
                Zeroizing::new(format!(" {}", &*quoted(path, &password)?))
            }
            Self::Cookie(path) if offer.has("SAFECOOKIE") => {
                safe_cookie(control, &cookie(path).await?, rng).await?
            }
            Self::Cookie(path) if offer.has("COOKIE") => {
                Zeroizing::new(format!(" {}", HEXLOWER.encode(&cookie(path).await?)))
            }
            Self::Auto if offer.has("NULL") => Zeroizing::default(),
            Self::Auto if offer.has("SAFECOOKIE") => {
                let path = offer.cookie.ok_or(ControlError::NoAuthentication)?;
                safe_cookie(control, &cookie(&path).await?, rng).await?
            }
            Self::Auto | Self::Cookie(_) => return Err(ControlError::NoAuthentication),
        };
        control.request("AUTHENTICATE", &proof).await.map(drop)
    }
}

/// Proves that the controller knows the cookie, once Tor has proved it.
async fn safe_cookie<S: AsyncRead + AsyncWrite + Unpin>(
    control: &mut Control<S>,
    cookie: &Cookie,
    rng: &mut impl CryptoRng,
) -> Result<Zeroizing<String>, ControlError> {
    let mut own_nonce = [0; 32];
    rng.fill_bytes(&mut own_nonce);
    let challenge = format!(" SAFECOOKIE {}", HEXLOWER.encode(&own_nonce));
    let reply = control.request("AUTHCHALLENGE", &challenge).await?;
    let malformed = ControlError::Protocol("a challenge is malformed");
    let line = reply.lines.last().map_or("", String::as_str);
    let field = |name: &str| {
        let mut words = line.split(' ');
        let value = words.find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        HEXLOWER_PERMISSIVE.decode(value?.as_bytes()).ok()
    };
    let (Some(proof), Some(nonce)) = (field("SERVERHASH"), field("SERVERNONCE")) else {
        return Err(malformed);
    };
    if nonce.len() != 32 {
        return Err(malformed);
    }
    let message = Zeroizing::new([&cookie[..], &own_nonce, &nonce].concat());
    let key = |key| hmac::Key::new(hmac::HMAC_SHA256, key);
    hmac::verify(&key(SERVER_KEY), &message, &proof)
        .map_err(|_| ControlError::Protocol("it does not know its own cookie"))?;
    let own_proof = hmac::sign(&key(CONTROLLER_KEY), &message);
    Ok(Zeroizing::new(format!(
        " {}",
        HEXLOWER.encode(own_proof.as_ref())
    )))
}

async fn cookie(path: &Path) -> Result<Cookie, ControlError> {
    let bytes = read(path.to_owned(), COOKIE_BYTES).await?;
    if bytes.len() != COOKIE_BYTES {
        return Err(ControlError::File {
            path: path.to_owned(),
            reason: "a cookie has 32 bytes",
        });
    }
    Ok(bytes)
}

/// A whole file of at most so many bytes.
async fn read(path: PathBuf, most: usize) -> Result<Zeroizing<Vec<u8>>, ControlError> {
    let named = path.clone();
    let reading = move || -> Result<Zeroizing<Vec<u8>>, &'static str> {
        let metadata = path.metadata().map_err(|_| "it cannot be found")?;
        if !metadata.is_file() {
            return Err("it is no file");
        }
        let file = File::open(&path).map_err(|_| "it cannot be read by this user")?;
        let mut bytes = Zeroizing::new(Vec::with_capacity(most + 1));
        let read = file.take(most as u64 + 1).read_to_end(&mut bytes);
        read.map_err(|_| "it cannot be read")?;
        if bytes.len() > most {
            return Err("it is too long");
        }
        Ok(bytes)
    };
    let read = tokio::task::spawn_blocking(reading).await;
    read.unwrap_or(Err("it cannot be read"))
        .map_err(|reason| ControlError::File {
            path: named,
            reason,
        })
}

/// The first line as a quoted string.
fn quoted(path: &Path, password: &[u8]) -> Result<Zeroizing<String>, ControlError> {
    let refused = |reason| ControlError::File {
        path: path.to_owned(),
        reason,
    };
    let text = std::str::from_utf8(password).map_err(|_| refused("it is not UTF-8"))?;
    let line = text.lines().next().unwrap_or_default();
    if line.is_empty() {
        return Err(refused("its first line is empty"));
    }
    if line.contains(char::is_control) {
        return Err(refused("its first line has control characters"));
    }
    let mut quoted = Zeroizing::new(String::with_capacity(2 * line.len() + 2));
    quoted.push('"');
    for character in line.chars() {
        if matches!(character, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(character);
    }
    quoted.push('"');
    Ok(quoted)
}

impl Offer {
    /// Reads `AUTH METHODS=COOKIE,SAFECOOKIE COOKIEFILE="/run/tor/control.authcookie"`.
    fn of(reply: &Reply) -> Result<Self, ControlError> {
        let auth = reply
            .lines
            .iter()
            .find_map(|line| line.strip_prefix("AUTH "));
        let auth = auth.ok_or(ControlError::Protocol("it tells of no authentication"))?;
        let methods = auth
            .split(' ')
            .find_map(|word| word.strip_prefix("METHODS="));
        let methods = methods.unwrap_or_default().split(',').map(str::to_owned);
        let cookie = auth.split_once("COOKIEFILE=\"");
        Ok(Self {
            methods: methods.collect(),
            cookie: cookie.and_then(|(_, text)| Some(unquoted(text)?.into())),
        })
    }

    fn has(&self, method: &str) -> bool {
        self.methods.iter().any(|offered| offered == method)
    }
}

/// The text up to the closing quote.
fn unquoted(text: &str) -> Option<String> {
    let mut characters = text.chars();
    let mut plain = String::new();
    loop {
        match characters.next()? {
            '"' => return Some(plain),
            '\\' => plain.push(characters.next()?),
            character => plain.push(character),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(line: &str) -> Result<Offer, ControlError> {
        Offer::of(&Reply {
            code: 250,
            lines: Zeroizing::new(vec!["PROTOCOLINFO 1".to_owned(), line.to_owned()]),
        })
    }

    #[test]
    fn offers_are_read() {
        let read = offer(r#"AUTH METHODS=COOKIE,SAFECOOKIE COOKIEFILE="/a b/\"c\\d""#).unwrap();
        assert!(read.has("SAFECOOKIE") && read.has("COOKIE") && !read.has("NULL"));
        assert_eq!(read.cookie, Some(r#"/a b/"c\d"#.into()));
        let read = offer("AUTH METHODS=NULL").unwrap();
        assert!(read.has("NULL") && read.cookie.is_none());
        assert!(
            offer(r#"AUTH METHODS=SAFECOOKIE COOKIEFILE="/cut"#)
                .unwrap()
                .cookie
                .is_none()
        );
        assert!(offer("VERSION Tor=\"0.4\"").is_err());
    }

    #[test]
    fn passwords_are_one_quoted_line() {
        let path = Path::new("password");
        let ask = |text: &[u8]| quoted(path, text).map(|text| text.to_string());
        assert_eq!(ask(b"a\"b\\c\nnext").unwrap(), r#""a\"b\\c""#);
        for refused in [&b""[..], b"\nx", b"a\x00b", b"\xff"] {
            assert!(ask(refused).is_err());
        }
    }
}
