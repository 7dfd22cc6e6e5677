//! What stands in the files of version 0.1.0 for what belongs to one run: its names, and what takes their place.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::LIFETIME;
use super::Owner;
use super::read;
use crate::reap::unix_now;

/// What stands in the place of the names.
pub(super) struct Values(BTreeMap<String, String>);

impl Values {
    pub(super) fn new(owner: Owner) -> Self {
        let mut values = Self(BTreeMap::new());
        let now = unix_now();
        let mut deadline = now + LIFETIME;
        let this = i32::try_from(std::process::id()).unwrap();
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        let boot = boot.replace('-', "");
        let boot = u64::from_str_radix(&boot[..16], 16).unwrap();
        let namespace = std::fs::read_link("/proc/self/ns/pid").unwrap();
        let namespace = namespace.to_str().unwrap();
        let mut namespace = namespace["pid:[".len()..namespace.len() - 1].to_owned();
        let (mut pid, mut began, mut of_boot) = (this, started(this), boot);
        match owner {
            Owner::Lives => {}
            Owner::Gone => {
                let mut child = Command::new("true").spawn().unwrap();
                pid = i32::try_from(child.id()).unwrap();
                began = started(pid);
                child.wait().unwrap();
            }
            Owner::OfAnotherBoot => of_boot = boot.wrapping_add(1),
            Owner::UnknownAndPast => {
                namespace = "1".to_owned();
                // By more than clocks may differ.
                deadline = now - 600;
                pid = 1;
                began = 1;
            }
        }
        for (name, value) in [
            ("NOW", now),
            ("DEADLINE", deadline),
            // What the machine itself goes by; it has not passed.
            ("DEADLINE_TEXT", now + LIFETIME),
            ("STARTED", began),
            ("BOOT", of_boot),
        ] {
            values.set(name, &value.to_string());
        }
        values.set("PID", &pid.to_string());
        values.set("NAMESPACE", &namespace);
        values
    }

    pub(super) fn set(&mut self, name: &str, value: &str) {
        self.0.insert(name.to_owned(), value.to_owned());
    }

    pub(super) fn get(&self, name: &str) -> &str {
        &self.0[name]
    }

    /// Reads a file of JSON and fills it in.
    pub(super) fn filled(&self, path: &Path) -> String {
        let mut value: Value = serde_json::from_str(&read(path)).unwrap();
        self.fill(&mut value);
        value.to_string()
    }

    pub(super) fn fill(&self, value: &mut Value) {
        const NUMBERS: [&str; 10] = [
            "NOW",
            "DEADLINE",
            "JOB_NUMBER",
            "PORT",
            "PID",
            "STARTED",
            "BOOT",
            "NAMESPACE",
            "KEEPER_PID",
            "KEEPER_STARTED",
        ];
        match value {
            Value::Array(items) => items.iter_mut().for_each(|item| self.fill(item)),
            Value::Object(fields) => fields.values_mut().for_each(|field| self.fill(field)),
            Value::String(text) => {
                let name = text.trim_matches('@');
                if text.starts_with('@') && NUMBERS.contains(&name) {
                    *value = self.get(name).parse::<u64>().unwrap().into();
                } else {
                    *text = self.filled_text(text);
                }
            }
            _ => {}
        }
    }

    pub(super) fn filled_plainly(&self, path: &Path) -> String {
        self.filled_text(&read(path))
    }

    pub(super) fn filled_text(&self, text: &str) -> String {
        let all = self.0.iter();
        all.fold(text.to_owned(), |text, (name, value)| {
            text.replace(&format!("@{name}@"), value)
        })
    }
}

/// Returns when a process began, as the kernel counts it.
pub(super) fn started(pid: i32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    fields.split(' ').nth(19).unwrap().parse().unwrap()
}

pub(super) fn hex(text: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    digest.as_ref().iter().map(|b| format!("{b:02x}")).collect()
}

/// Writes parameters in EC2's query form.
pub(super) fn form(parameters: &Value) -> String {
    let mut pairs = Vec::new();
    flatten("", parameters, &mut pairs);
    pairs.join("&")
}

fn flatten(name: &str, value: &Value, pairs: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (field, inner) in fields {
                let field = match field.as_str() {
                    "TagSpecifications" => "TagSpecification",
                    "Tags" => "Tag",
                    "NetworkInterfaces" => "NetworkInterface",
                    "BlockDeviceMappings" => "BlockDeviceMapping",
                    "Groups" => "SecurityGroupId",
                    other => other,
                };
                let dot = if name.is_empty() { "" } else { "." };
                flatten(&format!("{name}{dot}{field}"), inner, pairs);
            }
        }
        Value::Array(items) => {
            for (number, inner) in items.iter().enumerate() {
                flatten(&format!("{name}.{}", number + 1), inner, pairs);
            }
        }
        Value::String(text) => {
            let encoded: String = text
                .bytes()
                .map(|byte| match byte {
                    b if b.is_ascii_alphanumeric() => char::from(b).to_string(),
                    b => format!("%{b:02X}"),
                })
                .collect();
            pairs.push(format!("{name}={encoded}"));
        }
        other => pairs.push(format!("{name}={other}")),
    }
}
