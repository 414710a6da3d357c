//! The page's files, built into the binary.

use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// Path, type, content.
const FILES: [(&str, &str, &str); 8] = [
    ("/", HTML, include_str!("assets/index.html")),
    ("/page.css", CSS, include_str!("assets/page.css")),
    ("/main.js", SCRIPT, include_str!("assets/main.js")),
    ("/model.js", SCRIPT, include_str!("assets/model.js")),
    ("/sources.js", SCRIPT, include_str!("assets/sources.js")),
    ("/story.js", SCRIPT, include_str!("assets/story.js")),
    ("/view.js", SCRIPT, include_str!("assets/view.js")),
    ("/icon.svg", SVG, include_str!("assets/icon.svg")),
];

/// Answers with a file.
pub(super) async fn serve(uri: Uri) -> Response {
    match FILES.iter().find(|(path, _, _)| *path == uri.path()) {
        Some(&(_, kind, content)) => ([(header::CONTENT_TYPE, kind)], content).into_response(),
        None => (StatusCode::NOT_FOUND, "nothing here\n").into_response(),
    }
}
