//! Query parameters, strictly: an unknown, repeated or bad one is named, never passed over.

use std::collections::BTreeMap;

use axum::extract::Query;
use http::{StatusCode, Uri};

use crate::problem::Problem;

/// The parameters of a request that nobody has asked for yet.
pub(super) struct Params(Vec<(String, String)>);

impl Params {
    pub(super) fn of(uri: &Uri) -> Result<Params, Problem> {
        Query::try_from_uri(uri)
            .map(|Query(pairs)| Params(pairs))
            .map_err(|_| invalid("query", "the query is no list of name=value pairs"))
    }

    /// Takes the parameter `name` and reads it.
    pub(super) fn take<T, E: std::fmt::Display>(
        &mut self,
        name: &str,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<Option<T>, Problem> {
        let Some(place) = self.0.iter().position(|(given, _)| given == name) else { return Ok(None) };
        let (_, value) = self.0.remove(place);
        if self.0.iter().any(|(given, _)| given == name) {
            return Err(invalid(name, "it is given more than once"));
        }
        read(&value).map(Some).map_err(|why| invalid(name, &why.to_string()))
    }

    /// Takes every `prefix…=value`, without the prefix.
    pub(super) fn take_all(&mut self, prefix: &str) -> Result<BTreeMap<String, String>, Problem> {
        let (taken, left): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.0).into_iter().partition(|(name, _)| name.starts_with(prefix));
        self.0 = left;
        let mut found = BTreeMap::new();
        for (name, value) in taken {
            let short = &name[prefix.len()..];
            if short.is_empty() {
                return Err(invalid(&name, "a name is missing behind the dot"));
            }
            if found.insert(short.to_owned(), value).is_some() {
                return Err(invalid(&name, "it is given more than once"));
            }
        }
        Ok(found)
    }

    /// Refuses what nobody took.
    pub(super) fn finish(self) -> Result<(), Problem> {
        match self.0.first() {
            Some((name, _)) => Err(invalid(name, "there is no such parameter here")),
            None => Ok(()),
        }
    }
}

/// A parameter that can't be used.
pub(super) fn invalid(name: &str, why: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "invalid-parameter", "A parameter can't be used")
        .detail(format!("{name}: {why}"))
        .member("parameter", name)
}
