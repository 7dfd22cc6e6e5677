//! Finding and reading the file, and what no file may do.

use proptest::prelude::*;

use super::*;

#[test]
fn files_that_cannot_be_read_are_one_clear_line() {
    let dir = tempfile::tempdir().expect("directory");
    let at = |name: &str| dir.path().join(name);
    let shown = |path: &Path| path.display().to_string();
    let message = |path: &Path| {
        let e = load(Some(path)).expect_err("refused");
        assert_eq!(e.kind(), Kind::Config);
        assert!(e.remedy().is_some());
        e.to_string()
    };

    assert_eq!(
        message(&at("none")),
        format!("there is no file {}", shown(&at("none")))
    );
    assert!(message(dir.path()).starts_with(&format!(
        "cannot read {}: Is a directory",
        shown(dir.path())
    )));
    std::fs::write(at("latin"), b"# ok\na = \"\xe9\"\n").expect("write");
    assert_eq!(
        message(&at("latin")),
        format!(
            "{}:2:6: the file is not UTF-8: byte 0xe9",
            shown(&at("latin"))
        )
    );
    std::fs::write(at("huge"), vec![b'#'; (LARGEST_FILE + 1) as usize]).expect("write");
    assert!(message(&at("huge")).ends_with("is larger than 1 MiB"));
    std::fs::write(at("file"), b"").expect("write");
    assert!(message(&at("file").join("below")).starts_with("cannot read "));
    if !rustix::process::geteuid().is_root() {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(at("file"), std::fs::Permissions::from_mode(0o0)).expect("chmod");
        assert!(message(&at("file")).contains("Permission denied"));
    }
}

#[test]
fn the_first_default_that_is_there_is_read() {
    let dir = tempfile::tempdir().expect("directory");
    let first = dir.path().join("aws-driver.toml");
    let second = dir.path().join("fargate.toml");
    let defaults = [first.as_path(), second.as_path()];

    let e = load_from(None, &defaults).expect_err("none there");
    assert_eq!(
        e.to_string(),
        format!(
            "there is no configuration: no {} and no {}",
            first.display(),
            second.display()
        )
    );
    assert!(e.remedy().is_some_and(|r| r.contains("--config FILE")));
    std::fs::write(&second, "[SSH]\nPort = 1").expect("write");
    assert_eq!(load_from(None, &defaults).expect("second").path, second);
    std::fs::write(&first, "\u{feff}[ssh]\nport = 2\n").expect("write");
    let loaded = load_from(None, &defaults).expect("first");
    assert_eq!((loaded.path, loaded.settings.ssh.port), (first.clone(), 2));
    let loaded = load_from(Some(&second), &defaults).expect("named");
    assert_eq!(loaded.path, second);
    // A first file that is wrong is not passed over in silence.
    std::fs::write(&first, "[ssh]\nport = 0\n").expect("write");
    assert!(load_from(None, &defaults).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        drop(parse(&String::from_utf8_lossy(&bytes), Path::new("f.toml")));
    }

    #[test]
    fn no_toml_like_text_makes_it_panic(text in "([\\[\\]{}=.,\"'#\\n \\\\\u{feff}é]|profile|match|ssh|port|Port|subnets?|capacity|[0-9smGiB]){0,60}") {
        drop(parse(&text, Path::new("f.toml")));
    }

    #[test]
    fn no_change_to_a_right_file_makes_it_panic(
        which in 0..EXAMPLES.len(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>(), 0..4_u8), 1..8),
    ) {
        let mut bytes = EXAMPLES[which].1.as_bytes().to_vec();
        for (a, b, byte, how) in changes {
            if bytes.is_empty() {
                break;
            }
            let (a, b) = (a.index(bytes.len()), b.index(bytes.len()));
            match how {
                0 => bytes[a] = byte,
                1 => bytes.insert(a, byte),
                2 => drop(bytes.drain(a.min(b)..a.max(b))),
                _ => {
                    let copy = bytes[a.min(b)..a.max(b)].to_vec();
                    bytes.splice(a..a, copy);
                }
            }
        }
        let text = String::from_utf8_lossy(&bytes);
        if let Err(e) = parse(&text, Path::new("f.toml")) {
            prop_assert_eq!(e.kind(), Kind::Config);
            prop_assert!(e.to_string().starts_with("f.toml:"), "{}", e);
        }
    }
}
