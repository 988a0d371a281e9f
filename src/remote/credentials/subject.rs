//! Where the other identity provider's token comes from: a file, a URL, a program, or the identity that AWS gives a machine.
//! The forms are those of Google's AIP-4117.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, SystemTime};

use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use serde::Deserialize;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::process::Command;
use url::Url;

use super::aws::Machine;
use super::web::{self, Clients};
use crate::error::{Context, Error, Result};
use crate::human;
use crate::remote::Access;

/// Programs run only where this is `1`: being able to write a credentials file is not yet a right to run something.
const ALLOW_PROGRAMS: &str = "GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES";
/// How long a program may take unless the file says otherwise, in milliseconds.
const PROGRAM_TIME: u64 = 30_000;
/// What the file may say.
const PROGRAM_TIMES: std::ops::RangeInclusive<u64> = 5_000..=120_000;

/// What a token is asked for: programs are told, and AWS signs for it.
pub(super) struct Purpose<'a> {
    pub(super) audience: &'a str,
    pub(super) token_type: &'a str,
    /// The service account that is acted as in the end.
    pub(super) email: Option<&'a str>,
}

/// The `credential_source` of a credentials file.
#[derive(Deserialize)]
pub(super) struct Fields {
    file: Option<PathBuf>,
    url: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    format: Format,
    executable: Option<Program>,
    environment_id: Option<String>,
    regional_cred_verification_url: Option<String>,
}

/// Whether the token is all that is read, or a field of it.
#[derive(Deserialize, Default)]
pub(super) struct Format {
    #[serde(rename = "type")]
    kind: Option<String>,
    subject_token_field_name: Option<String>,
}

impl Format {
    fn token(&self, bytes: Vec<u8>) -> Result<String> {
        let unreadable = || Error::new("credential_source: no token in what it gives");
        if self.kind.as_deref() != Some("json") {
            let text = String::from_utf8(bytes).map_err(|_| unreadable())?;
            return Some(text.trim().to_owned()).filter(|text| !text.is_empty()).ok_or_else(unreadable);
        }
        let value: serde_json::Value = serde_json::from_slice(&bytes).map_err(|_| unreadable())?;
        let field = self.subject_token_field_name.as_deref().unwrap_or("access_token");
        value[field].as_str().map(str::to_owned).ok_or_else(unreadable)
    }
}

/// A source of tokens. They are asked for anew each time, because they are short-lived themselves.
pub(super) enum Subject {
    File(PathBuf, Format),
    Url(Url, BTreeMap<String, String>, Format),
    Program(Program),
    Aws(Aws),
}

impl Subject {
    /// Every place that a secret will go to is checked here.
    pub(super) fn new(fields: Fields, access: &Access) -> Result<Subject> {
        let Fields { file, url, headers, format, executable, .. } = fields;
        match (file, url, executable, fields.environment_id) {
            (Some(path), None, None, None) => Ok(Subject::File(path, format)),
            (None, Some(url), None, None) => {
                Ok(Subject::Url(web::secure(&url, "credential_source.url")?, headers, format))
            }
            (None, None, Some(program), None) => program.allowed(access).map(Subject::Program),
            // Its `url` and `region_url` are the metadata server's, which the machine's own chain knows.
            (None, _, None, Some(id)) => {
                Aws::new(&id, fields.regional_cred_verification_url, access).map(Subject::Aws)
            }
            _ => Err(Error::new("its credential_source is not one of a file, a URL, a program and AWS")
                .hint("certificates are not supported; use one of these")),
        }
    }

    pub(super) async fn token(&self, clients: &Clients, purpose: &Purpose<'_>) -> Result<String> {
        match self {
            Subject::File(path, format) => format.token(small_file(path)?),
            Subject::Url(url, headers, format) => {
                let client = clients.of(url);
                let mut request = client.get(url.clone());
                for (name, value) in headers {
                    request = request.header(name, value);
                }
                format.token(web::send(client, request, "identity provider").await?)
            }
            Subject::Program(program) => program.token(purpose).await,
            Subject::Aws(aws) => aws.token(purpose).await,
        }
    }
}

fn small_file(path: &Path) -> Result<Vec<u8>> {
    let size = std::fs::metadata(path).context(path, "read")?.len();
    if size > web::MAX_ANSWER as u64 {
        return Err(Error::new(format!("{}: too large for a token", path.display())));
    }
    std::fs::read(path).context(path, "read")
}

/// A program that prints tokens.
#[derive(Deserialize)]
pub(super) struct Program {
    command: String,
    timeout_millis: Option<u64>,
    /// Where it keeps what it printed last.
    output_file: Option<PathBuf>,
}

/// What a program prints.
#[derive(Deserialize)]
struct Printed {
    version: u64,
    success: bool,
    token_type: Option<String>,
    id_token: Option<String>,
    saml_response: Option<String>,
    /// Seconds since 1970.
    expiration_time: Option<u64>,
    code: Option<String>,
    message: Option<String>,
}

impl Program {
    fn allowed(self, access: &Access) -> Result<Program> {
        if access.variable(ALLOW_PROGRAMS) != Some("1") {
            // Its arguments may be secrets; whoever decides can read them in the file.
            let name = human::escape(self.command.split_whitespace().next().unwrap_or_default());
            return Err(Error::new(format!("its credential_source wants to run a program: {name}"))
                .hint(format!("if the command in that file is yours, allow it: {ALLOW_PROGRAMS}=1")));
        }
        if self.timeout_millis.is_some_and(|time| !PROGRAM_TIMES.contains(&time)) {
            let (least, most) = (PROGRAM_TIMES.start(), PROGRAM_TIMES.end());
            return Err(Error::new(format!("its timeout_millis is not between {least} and {most}"))
                .hint("change it in that file; without one it is 30000"));
        }
        Ok(self)
    }

    async fn token(&self, purpose: &Purpose<'_>) -> Result<String> {
        if let Some(token) = self.kept().and_then(|kept| kept.token(purpose).ok()) {
            return Ok(token);
        }
        // Split at blanks, and never given to a shell.
        let mut words = self.command.split_whitespace();
        let name = words.next().ok_or_else(|| Error::new("its credential_source names an empty command"))?;
        // Not its arguments, which may be secrets.
        let shown = human::escape(name);
        let mut command = Command::new(name);
        command
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .env("GOOGLE_EXTERNAL_ACCOUNT_AUDIENCE", purpose.audience)
            .env("GOOGLE_EXTERNAL_ACCOUNT_TOKEN_TYPE", purpose.token_type)
            .env("GOOGLE_EXTERNAL_ACCOUNT_INTERACTIVE", "0");
        if let Some(email) = purpose.email {
            command.env("GOOGLE_EXTERNAL_ACCOUNT_IMPERSONATED_EMAIL", email);
        }
        if let Some(path) = &self.output_file {
            command.env("GOOGLE_EXTERNAL_ACCOUNT_OUTPUT_FILE", path);
        }
        let patience = Duration::from_millis(self.timeout_millis.unwrap_or(PROGRAM_TIME));
        let output = tokio::time::timeout(patience, output(command)).await;
        let (output, status) = output
            .map_err(|_| Error::new(format!("{shown}: gave no token within {} s", patience.as_secs())))?
            .map_err(|error| Error::new(format!("{shown}: cannot be run")).caused_by(error))?;
        if output.len() > web::MAX_ANSWER {
            return Err(Error::new(format!("{shown}: printed too much for a token")));
        }
        let printed: Option<Printed> = serde_json::from_slice(&output).ok();
        match printed {
            Some(printed) if status.success() || !printed.success => {
                printed.token(purpose).map_err(|error| error.about(shown))
            }
            _ if !status.success() => Err(Error::new(format!("{shown}: failed ({status})"))),
            _ => Err(Error::new(format!("{shown}: what it printed is not the JSON that AIP-4117 asks for"))),
        }
    }

    /// What an earlier run left, while it is good.
    fn kept(&self) -> Option<Printed> {
        let bytes = small_file(self.output_file.as_deref()?).ok()?;
        let kept: Printed = serde_json::from_slice(&bytes).ok()?;
        let lasting = kept.expiration_time.is_some_and(|at| at > seconds_now());
        Some(kept).filter(|kept| kept.success && lasting)
    }
}

/// Runs a program; returns what it printed, up to little more than it may, and how it ended.
async fn output(mut command: Command) -> std::io::Result<(Vec<u8>, ExitStatus)> {
    let mut child = command.spawn()?;
    let mut printed = Vec::new();
    if let Some(output) = child.stdout.take() {
        output.take(web::MAX_ANSWER as u64 + 1).read_to_end(&mut printed).await?;
    }
    if printed.len() > web::MAX_ANSWER {
        child.start_kill()?;
    }
    Ok((printed, child.wait().await?))
}

impl Printed {
    fn token(self, purpose: &Purpose<'_>) -> Result<String> {
        if !self.success {
            let said = [self.code, self.message].into_iter().flatten().collect::<Vec<_>>().join(": ");
            let said: String = human::escape(&said).chars().take(300).collect();
            return Err(Error::new(format!("says that it failed: {said}")));
        }
        if self.version != 1 {
            return Err(Error::new(format!("version {} of its answer is not known", self.version)));
        }
        if self.expiration_time.is_some_and(|at| at <= seconds_now()) {
            return Err(Error::new("the token that it gave expired"));
        }
        if self.token_type.as_deref() != Some(purpose.token_type) {
            return Err(Error::new("gave another type of token than the credentials file names"));
        }
        let token = if purpose.token_type.ends_with(":saml2") { self.saml_response } else { self.id_token };
        token.ok_or_else(|| Error::new("no token in what it gives"))
    }
}

fn seconds_now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// An identity that AWS gives: a request to its token service that only this identity could have signed is the token.
pub(super) struct Aws {
    /// The request's URL; `{region}` stands for the region.
    verification: String,
    machine: Machine,
}

impl Aws {
    fn new(environment_id: &str, verification: Option<String>, access: &Access) -> Result<Aws> {
        if environment_id != "aws1" {
            let shown = human::escape(environment_id);
            return Err(Error::new(format!(
                "its credential_source is of the environment `{shown}`, not aws1"
            )));
        }
        let verification = verification
            .ok_or_else(|| Error::new("its credential_source has no regional_cred_verification_url"))?;
        // What is signed for any other host could be used there, and any other action gives more away than who this is.
        let url =
            web::secure(&verification.replace("{region}", "us-east-1"), "regional_cred_verification_url")?;
        let host = url.host_str().unwrap_or_default();
        let actions: Vec<_> =
            url.query_pairs().filter(|(key, _)| key == "Action").map(|(_, action)| action).collect();
        if !(host.starts_with("sts.")
            && (host.ends_with(".amazonaws.com") || host.ends_with(".amazonaws.com.cn")))
        {
            return Err(Error::new("its regional_cred_verification_url is not the token service of AWS")
                .hint("it looks like https://sts.{region}.amazonaws.com?Action=GetCallerIdentity&Version=2011-06-15"));
        }
        if actions != ["GetCallerIdentity"] {
            return Err(Error::new(
                "its regional_cred_verification_url asks for something else than who this is",
            )
            .hint("it has Action=GetCallerIdentity and no other action"));
        }
        Ok(Aws { verification, machine: Machine::new(access)? })
    }

    async fn token(&self, purpose: &Purpose<'_>) -> Result<String> {
        const RESOURCE: &str = "x-goog-cloud-target-resource";
        let (credentials, region) = self.machine.identity().await?;
        let url = self.verification.replace("{region}", &region);
        let cannot = || Error::new("the request to AWS cannot be signed");
        let identity = credentials.into();
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(&region)
            .name("sts")
            .time(SystemTime::now())
            .settings(SigningSettings::default())
            .build()
            .map_err(|_| cannot())?
            .into();
        let parsed = Url::parse(&url).map_err(|_| cannot())?;
        let own = [("host", parsed.host_str().ok_or_else(cannot)?), (RESOURCE, purpose.audience)];
        let request = SignableRequest::new("POST", &url, own.into_iter(), SignableBody::Bytes(&[]));
        let signed = sign(request.map_err(|_| cannot())?, &params).map_err(|_| cannot())?;
        let headers: Vec<_> = signed
            .output()
            .headers()
            .chain(own)
            .map(|(key, value)| json!({ "key": key, "value": value }))
            .collect();
        let request = json!({ "url": url, "method": "POST", "headers": headers }).to_string();
        Ok(url::form_urlencoded::byte_serialize(request.as_bytes()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fsio::Durability;
    use crate::remote::Traffic;

    fn subject(fields: serde_json::Value) -> Result<Subject> {
        let access = Access {
            endpoint: None,
            region: None,
            profile: None,
            anonymous: false,
            allow_http: false,
            checksum: true,
            credentials: Vec::new(),
            durability: Durability::Full,
            traffic: Traffic::new(None, None),
            create: false,
        };
        Subject::new(serde_json::from_value(fields).unwrap(), &access)
    }

    #[test]
    fn sources_that_are_none_or_two_are_refused() {
        let aws = |url: &str| json!({ "environment_id": "aws1", "regional_cred_verification_url": url });
        let good = "https://sts.{region}.amazonaws.com?Action=GetCallerIdentity&Version=2011-06-15";
        assert!(subject(aws(good)).is_ok());
        for bad in [
            json!({}),
            json!({ "file": "a", "url": "https://b" }),
            json!({ "url": "http://b.example/token" }),
            json!({ "executable": { "command": "true" } }),
            json!({ "environment_id": "aws2", "regional_cred_verification_url": good }),
            json!({ "environment_id": "aws1" }),
            aws("https://sts.{region}.amazonaws.com.example/"),
            aws("https://amazonaws.com/"),
            aws("https://sts.{region}.amazonaws.com?Action=GetSessionToken&Version=2011-06-15"),
            aws("https://sts.{region}.amazonaws.com?Action=GetCallerIdentity&Action=AssumeRole"),
            aws("https://sts.{region}.amazonaws.com"),
            aws("http://sts.{region}.amazonaws.com/"),
        ] {
            assert!(subject(bad.clone()).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_a_program_prints_is_a_token_or_a_reason() {
        let purpose =
            Purpose { audience: "a", token_type: "urn:ietf:params:oauth:token-type:jwt", email: None };
        let read = |value: serde_json::Value| {
            let printed: Printed = serde_json::from_value(value).unwrap();
            printed.token(&purpose).map_err(|error| error.one_line())
        };
        let answer = |more: serde_json::Value| {
            let mut value =
                json!({ "version": 1, "success": true, "token_type": purpose.token_type, "id_token": "t" });
            value.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            read(value)
        };
        assert_eq!(answer(json!({})).unwrap(), "t");
        assert_eq!(answer(json!({ "expiration_time": seconds_now() + 60 })).unwrap(), "t");
        assert!(answer(json!({ "expiration_time": seconds_now() })).unwrap_err().contains("expired"));
        assert!(answer(json!({ "version": 2 })).unwrap_err().contains("version 2"));
        assert!(answer(json!({ "token_type": "other" })).unwrap_err().contains("another type"));
        let failed = json!({ "version": 1, "success": false, "code": "401", "message": "log in" });
        assert_eq!(read(failed).unwrap_err(), "says that it failed: 401: log in");
    }
}
