//! How a controller authenticates itself (control-spec, sections 3.5, 3.21 and 3.24).

use std::{
    fs::{File, Metadata},
    io::{self, Read as _},
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
/// Cookie files of packaged Tors, in folders that only root and Tor write to.
const PACKAGED_COOKIES: [&str; 3] = [
    "/run/tor/control.authcookie",
    "/var/run/tor/control.authcookie",
    "/var/lib/tor/control_auth_cookie",
];

/// How this node authenticates itself to the control port.
///
/// Any user of this machine may listen at the port while Tor does not, and the key of the service follows. A cookie is
/// therefore used by SAFECOOKIE alone, in which Tor proves that it knows the cookie before the controller does; a control port
/// that asks for no authentication is refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Authentication {
    /// SAFECOOKIE with the file that the control port names, if no other user can have made it: it is where packages of Tor
    /// keep it, or it belongs to root or to the user of this process and is closed to others.
    #[default]
    Auto,
    /// SAFECOOKIE with this file.
    Cookie(PathBuf),
    /// The password in this file, its first line. Tor proves nothing: what listens in its place learns the password, and the
    /// key of the service.
    Password(PathBuf),
}

/// Reply to PROTOCOLINFO.
#[derive(Debug, Default, PartialEq, Eq)]
struct Offer {
    methods: Vec<String>,
    cookie: Option<PathBuf>,
}

type Cookie = Zeroizing<Vec<u8>>;

/// A file that was read, as it was when it was open.
struct Contents {
    metadata: Metadata,
    bytes: Zeroizing<Vec<u8>>,
}

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
                Zeroizing::new(format!(" {}", &*quoted(path, &password.bytes)?))
            }
            Self::Auto | Self::Cookie(_) if !offer.has("SAFECOOKIE") => {
                return Err(ControlError::NoAuthentication);
            }
            Self::Cookie(path) => {
                let cookie = cookie(read(path.clone(), COOKIE_BYTES).await?, path)?;
                safe_cookie(control, &cookie, rng).await?
            }
            Self::Auto => {
                let path = offer.cookie.ok_or(ControlError::NoAuthentication)?;
                let file = read(path.clone(), COOKIE_BYTES).await?;
                if !is_trusted(&path, &file.metadata) {
                    return Err(ControlError::UntrustedCookie(path));
                }
                safe_cookie(control, &cookie(file, &path)?, rng).await?
            }
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

/// Whether no user but root, Tor and that of this process can have made the file.
fn is_trusted(path: &Path, file: &Metadata) -> bool {
    if PACKAGED_COOKIES
        .iter()
        .any(|known| path == Path::new(known))
    {
        return true;
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        // Files of /proc that belong to root can say what another user chose; they have no length.
        let is_private = file.mode() & 0o027 == 0 && file.len() == COOKIE_BYTES as u64;
        is_private && [0, rustix::process::geteuid().as_raw()].contains(&file.uid())
    }
    #[cfg(not(unix))]
    {
        let _ = file;
        false
    }
}

fn cookie(file: Contents, path: &Path) -> Result<Cookie, ControlError> {
    if file.bytes.len() != COOKIE_BYTES {
        return Err(ControlError::File {
            path: path.to_owned(),
            reason: "a cookie has 32 bytes",
        });
    }
    Ok(file.bytes)
}

/// A whole file of at most so many bytes.
async fn read(path: PathBuf, most: usize) -> Result<Contents, ControlError> {
    let named = path.clone();
    let reading = move || -> io::Result<Option<Contents>> {
        // A pipe would hold up its opening.
        if !path.metadata()?.is_file() {
            return Ok(None);
        }
        let file = File::open(&path)?;
        let metadata = file.metadata()?;
        let mut bytes = Zeroizing::new(Vec::with_capacity(most + 1));
        file.take(most as u64 + 1).read_to_end(&mut bytes)?;
        Ok(Some(Contents { metadata, bytes }))
    };
    let read = tokio::task::spawn_blocking(reading).await;
    let refused = |reason| ControlError::File {
        path: named.clone(),
        reason,
    };
    match read.unwrap_or_else(|_| Err(io::ErrorKind::Interrupted.into())) {
        Ok(None) => Err(refused("it is no file")),
        Ok(Some(file)) if file.bytes.len() > most => Err(refused("it is too long")),
        Ok(Some(file)) => Ok(file),
        Err(error) => Err(ControlError::Unreadable {
            path: named,
            kind: error.kind(),
        }),
    }
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
