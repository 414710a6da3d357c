//! `pulsegate sessions ls|get|send|kick`

use http::{Method, StatusCode};
use serde_json::{Value as Json, json};

use super::api::Api;
use super::client::{Client, escape, refusal};
use super::exit::{self, Failure};
use super::output::{Format, Output, print, print_json, say};
use super::send::{Send, send};
use super::table::{clean, short_time, table};

/// Sessions that the control API gives at once.
const PAGE_MAX: usize = 1000;

const HEADINGS: [&str; 9] = ["ID", "STATE", "CLIENT", "AGE", "RTT", "SILENT", "IN", "OUT", "PATH"];

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Lists sessions.
    Ls(List),
    /// Shows one session, also after its end while it is remembered.
    Get(Get),
    /// Sends a message to a session's client, and waits for its outcome if told to.
    Send(Send),
    /// Ends a session.
    Kick(Kick),
}

#[derive(Debug, clap::Args)]
pub(super) struct List {
    #[command(flatten)]
    pub(super) api: Api,
    #[command(flatten)]
    pub(super) format: Format,
    /// Only sessions in this state: live, suspect or detached
    #[arg(long, env = "PULSEGATE_SESSIONS_STATE")]
    pub(super) state: Option<String>,
    /// Only sessions with this label; all that are given must match
    #[arg(long, value_name = "KEY=VALUE", value_parser = label, env = "PULSEGATE_SESSIONS_LABEL")]
    pub(super) label: Vec<(String, String)>,
    /// Most sessions shown
    #[arg(long, default_value_t = 100, value_parser = limit, env = "PULSEGATE_SESSIONS_LIMIT")]
    pub(super) limit: usize,
}

#[derive(Debug, clap::Args)]
pub(super) struct Get {
    #[command(flatten)]
    pub(super) api: Api,
    #[command(flatten)]
    pub(super) format: Format,
    /// The session's id
    pub(super) id: String,
}

#[derive(Debug, clap::Args)]
pub(super) struct Kick {
    #[command(flatten)]
    pub(super) api: Api,
    /// The session's id
    pub(super) id: String,
    /// Close code that both sides see
    #[arg(long, default_value_t = 1008, env = "PULSEGATE_KICK_CODE")]
    pub(super) code: u16,
    /// Reason that both sides see
    #[arg(long, default_value = "kicked", env = "PULSEGATE_KICK_REASON")]
    pub(super) reason: String,
}

pub(super) async fn run(arguments: Arguments) -> Result<u8, Failure> {
    match arguments.command {
        Command::Ls(list) => ls(&list).await,
        Command::Get(get) => show(&get).await,
        Command::Send(order) => send(&order).await,
        Command::Kick(order) => kick(&order).await,
    }
}

async fn ls(list: &List) -> Result<u8, Failure> {
    let client = Client::new(&list.api)?;
    let mut filter = String::new();
    if let Some(state) = &list.state {
        filter.push_str(&format!("&state={}", escape(state)));
    }
    for (name, value) in &list.label {
        filter.push_str(&format!("&label.{}={}", escape(name), escape(value)));
    }
    let (mut items, mut next) = (Vec::new(), Json::Null);
    while items.len() < list.limit {
        let limit = (list.limit - items.len()).min(PAGE_MAX);
        let cursor = next.as_str().map(|next| format!("&cursor={}", escape(next))).unwrap_or_default();
        let path = format!("/v1/sessions?limit={limit}{filter}{cursor}");
        let (status, mut page) = client.ask(Method::GET, &path).await?;
        if status != StatusCode::OK {
            return Err(refusal(status, &page));
        }
        // Whoever answers may be no gateway: a member that is not there is no more than empty.
        let mut member = |name: &str| page.get_mut(name).map(Json::take).unwrap_or_default();
        next = member("next");
        let page = member("items").as_array_mut().map(std::mem::take).unwrap_or_default();
        let empty = page.is_empty();
        items.extend(page);
        if empty || next.is_null() {
            break;
        }
    }
    match list.format.output {
        Output::Json => print_json(&json!({ "items": items, "next": next }))?,
        Output::Table => {
            print(&table(&HEADINGS, &items.iter().map(row).collect::<Vec<_>>()))?;
            if !next.is_null() {
                say(&format!("there are more than {}; see --limit", list.limit));
            }
        }
    }
    Ok(exit::OK)
}

async fn show(get: &Get) -> Result<u8, Failure> {
    let client = Client::new(&get.api)?;
    let (status, answer) = client.ask(Method::GET, &format!("/v1/sessions/{}", escape(&get.id))).await?;
    let shown = match status {
        StatusCode::OK => &answer,
        StatusCode::GONE => &answer["session"],
        _ => return Err(refusal(status, &answer)),
    };
    match get.format.output {
        Output::Json => print_json(shown)?,
        Output::Table => {
            let mut rows = Vec::new();
            flatten("", shown, &mut rows);
            print(&table(&["FIELD", "VALUE"], &rows))?;
        }
    }
    if status == StatusCode::OK { Ok(exit::OK) } else { Err(refusal(status, &answer)) }
}

async fn kick(order: &Kick) -> Result<u8, Failure> {
    let client = Client::new(&order.api)?;
    let (id, reason) = (escape(&order.id), escape(&order.reason));
    let path = format!("/v1/sessions/{id}?code={}&reason={reason}", order.code);
    match client.ask(Method::DELETE, &path).await? {
        (StatusCode::NO_CONTENT, _) => Ok(exit::OK),
        (status, answer) => Err(refusal(status, &answer)),
    }
}

/// One line of the list. Round trip and silence are the client's: the app's are much the same for all.
fn row(session: &Json) -> Vec<String> {
    let text = |value: &Json| clean(value.as_str().unwrap_or("-"));
    let time = |value: &Json| value.as_f64().map_or("-".into(), short_time);
    let client = &session["legs"]["client"];
    let app = &session["legs"]["app"];
    let state = match (text(&session["state"]), app["state"] == "suspect", client["state"] == "suspect") {
        (state, false, false) => state,
        (state, true, false) => format!("{state} (app)"),
        (state, false, true) => format!("{state} (client)"),
        (state, true, true) => format!("{state} (both)"),
    };
    vec![
        text(&session["id"]),
        state,
        text(&session["client"]),
        time(&session["age_seconds"]),
        time(&client["round_trip_seconds"]),
        time(&client["silent_for_seconds"]),
        client["messages"].to_string(),
        app["messages"].to_string(),
        text(&session["path"]),
    ]
}

/// Every value of an object with the path to it.
fn flatten(path: &str, value: &Json, rows: &mut Vec<Vec<String>>) {
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match value {
        Json::Object(members) => {
            for (name, member) in members {
                flatten(&below(&clean(name)), member, rows);
            }
        }
        Json::Null => rows.push(vec![path.into(), "-".into()]),
        Json::String(text) => rows.push(vec![path.into(), clean(text)]),
        Json::Bool(_) | Json::Number(_) | Json::Array(_) => rows.push(vec![path.into(), value.to_string()]),
    }
}

fn limit(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(limit) if limit > 0 => Ok(limit),
        Ok(_) | Err(_) => Err("a number from 1 on is expected".into()),
    }
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.into(), value.into())),
        Some(_) | None => Err("write name=value".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_shows_who_is_suspect_and_hides_what_is_unknown() {
        let session = json!({
            "id": "01", "state": "suspect", "client": "10.0.0.9", "path": "/ws", "age_seconds": 61.0,
            "legs": {
                "client": {
                    "state": "live", "messages": 3, "silent_for_seconds": 0.4, "round_trip_seconds": null,
                },
                "app": { "state": "suspect", "messages": 5 },
            },
        });
        let expected = ["01", "suspect (app)", "10.0.0.9", "1m 1s", "-", "400ms", "3", "5", "/ws"];
        assert_eq!(row(&session), expected);
        let mut rows = Vec::new();
        flatten("", &json!({ "a": { "b\u{1b}": null, "c": "x\u{7}" }, "n": 7 }), &mut rows);
        assert_eq!(rows, [["a.b\\u{1b}", "-"], ["a.c", "x\\u{7}"], ["n", "7"]]);
    }
}
