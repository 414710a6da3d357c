//! How each type of a field takes and gives a [`Value`].

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::kind::Value;
use super::text::read_network;
use super::{AppAck, Confirm, ControlAddr, LogFormat, Profile, Switch};

/// A field of the configuration.
pub(super) trait Field: Sized {
    /// Makes a field of a checked value; `None` when kind and field disagree.
    fn take(value: Value) -> Option<Self>;
    /// The field as a value; `None` when it is unset.
    fn give(&self) -> Option<Value>;
}

impl Field for Duration {
    fn take(value: Value) -> Option<Duration> {
        if let Value::Duration(duration) = value { Some(duration) } else { None }
    }

    fn give(&self) -> Option<Value> {
        Some(Value::Duration(*self))
    }
}

impl<F: Field> Field for Option<F> {
    fn take(value: Value) -> Option<Option<F>> {
        F::take(value).map(Some)
    }

    fn give(&self) -> Option<Value> {
        self.as_ref().and_then(F::give)
    }
}

impl Field for u64 {
    fn take(value: Value) -> Option<u64> {
        if let Value::Whole(number) = value { Some(number) } else { None }
    }

    fn give(&self) -> Option<Value> {
        Some(Value::Whole(*self))
    }
}

/// Narrower numbers; the kind's bounds keep values inside them.
macro_rules! number_field {
    ($($number:ty),*) => {$(
        impl Field for $number {
            fn take(value: Value) -> Option<$number> {
                u64::take(value).and_then(|number| number.try_into().ok())
            }

            fn give(&self) -> Option<Value> {
                u64::try_from(*self).ok().map(Value::Whole)
            }
        }
    )*};
}

number_field!(usize, u32, u16);

/// Types that are written as one text.
macro_rules! text_field {
    ($($kind:ty, $show:expr);*) => {$(
        impl Field for $kind {
            fn take(value: Value) -> Option<$kind> {
                String::take(value).and_then(|text| <$kind>::from_str(&text).ok())
            }

            fn give(&self) -> Option<Value> {
                let show: fn(&$kind) -> String = $show;
                Some(Value::Text(show(self)))
            }
        }
    )*};
}

text_field!(
    SocketAddr, |address| address.to_string();
    ControlAddr, |address| address.to_string();
    PathBuf, |path| path.display().to_string();
    Profile, |profile| profile.name().into();
    LogFormat, |format| format.name().into();
    Confirm, |confirm| confirm.as_str().into();
    AppAck, |ack| ack.as_str().into();
    Switch, |switch| switch.name().into()
);

impl Field for String {
    fn take(value: Value) -> Option<String> {
        if let Value::Text(text) = value { Some(text) } else { None }
    }

    fn give(&self) -> Option<Value> {
        Some(Value::Text(self.clone()))
    }
}

impl Field for Vec<String> {
    fn take(value: Value) -> Option<Vec<String>> {
        if let Value::List(items) = value { Some(items) } else { None }
    }

    fn give(&self) -> Option<Value> {
        Some(Value::List(self.clone()))
    }
}

impl Field for Vec<ipnet::IpNet> {
    fn take(value: Value) -> Option<Vec<ipnet::IpNet>> {
        Vec::<String>::take(value)?.iter().map(|text| read_network(text).ok()).collect()
    }

    fn give(&self) -> Option<Value> {
        Some(Value::List(self.iter().map(ToString::to_string).collect()))
    }
}

impl Field for BTreeMap<String, String> {
    fn take(value: Value) -> Option<BTreeMap<String, String>> {
        if let Value::Table(entries) = value { Some(entries) } else { None }
    }

    fn give(&self) -> Option<Value> {
        Some(Value::Table(self.clone()))
    }
}
