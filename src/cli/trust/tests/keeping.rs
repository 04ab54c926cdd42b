//! Where trusts are stored, and which of them are valid.

use super::*;

#[test]
fn without_a_home_there_is_no_trust() {
    let mut place = Place::new(TEXT);
    place.environment.folders.genius = None;
    insta::assert_snapshot!(place.refusal(), @r"
    error: DIR/project/p.yaml runs its own programs in stages `make`, `count`, and there is no folder for trusts: neither GENIUS_HOME, XDG_CACHE_HOME nor HOME is an absolute path
      = help: set HOME, or GENIUS_HOME, to an absolute path of your own; `genius run --allow-commands` lets one run without a trust
    ");
    let error = CliError::from(Keeper::new(None).unwrap_err());
    assert_eq!(error.exit_code(), 4);
}

/// Ways in which another user could have written a trust.
#[test]
fn a_trust_that_others_can_write_is_invalid() {
    type Spoil = fn(&Place);
    let set_mode = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let cases: [(&str, Spoil); 7] = [
        ("others can write it (mode 0666)", |p| {
            std::fs::set_permissions(p.trust_file(), std::fs::Permissions::from_mode(0o666))
                .unwrap();
        }),
        ("others can write it (mode 0620)", |p| {
            std::fs::set_permissions(p.trust_file(), std::fs::Permissions::from_mode(0o620))
                .unwrap();
        }),
        ("it is a copy", |p| {
            let bytes = std::fs::read(p.trust_file()).unwrap();
            let aside = p.trust_file().with_extension("old");
            std::fs::rename(p.trust_file(), &aside).unwrap();
            std::fs::write(p.trust_file(), bytes).unwrap();
        }),
        ("it is a symbolic link", |p| {
            std::fs::rename(p.trust_file(), p.path("brought.json")).unwrap();
            symlink(p.path("brought.json"), p.trust_file()).unwrap();
        }),
        ("it has a second name", |p| {
            std::fs::hard_link(p.trust_file(), p.path("second")).unwrap();
        }),
        ("trust is not believed: it is a symbolic link", |p| {
            let folder = p.dir.path().join("home/trust");
            std::fs::rename(&folder, p.path("trust")).unwrap();
            symlink(p.path("trust"), folder).unwrap();
        }),
        ("a link leads from there into the project", |p| {
            let home = p.dir.path().join("home");
            std::fs::rename(&home, p.path("home")).unwrap();
            symlink(p.path("home"), home).unwrap();
        }),
    ];
    for (why, spoil) in cases {
        let place = Place::new(TEXT);
        place.trust();
        assert_eq!(place.refusal(), "", "{why}");
        spoil(&place);
        let refused = place.refusal();
        assert!(refused.contains(why), "{why}: {refused}");
        assert!(refused.contains("= help: "), "{why}: {refused}");
    }
    for folder in ["home", "home/trust"] {
        let place = Place::new(TEXT);
        place.trust();
        set_mode(&place.dir.path().join(folder), 0o777);
        let refused = place.refusal();
        assert!(
            refused.contains("others can write it (mode 0777)"),
            "{refused}"
        );
        assert!(refused.contains("chmod go-w"), "{refused}");
    }
}

#[test]
fn a_trust_of_another_user_is_invalid() {
    if keep::user() != 0 {
        // Only root can give a file away.
        return;
    }
    for name in ["", "home/trust", "home"] {
        let place = Place::new(TEXT);
        place.trust();
        let path = if name.is_empty() {
            place.trust_file()
        } else {
            place.dir.path().join(name)
        };
        std::os::unix::fs::chown(path, Some(12345), None).unwrap();
        let refused = place.refusal();
        assert!(
            refused.contains("it belongs to another user (uid 12345"),
            "{name}: {refused}"
        );
    }
}

#[test]
fn a_file_that_is_not_a_trust_is_invalid() {
    let place = Place::new(TEXT);
    place.trust();
    let file = place.trust_file();
    for text in ["", "{}", "[1]", "{\"path\":\"/x\"}"] {
        std::fs::write(&file, text).unwrap();
        assert!(place.refusal().contains("it is not trusted yet"), "{text}");
    }
    // A trust of an earlier Genius names its file, and is removed with it.
    let old = serde_json::json!({"path": place.path("p.yaml"), "digest": place.load(&[]).digest, "when": "2026-01-02T03:04:05Z"});
    std::fs::write(&file, old.to_string()).unwrap();
    assert!(
        place
            .refusal()
            .contains("written by another version of Genius")
    );
    assert!(place.keeper().revoke(&place.path("p.yaml")).unwrap());
    assert!(place.refusal().contains("it is not trusted yet"));
}

#[test]
fn a_trust_is_valid_for_its_user_only() {
    let place = Place::new(TEXT);
    place.trust();
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&place.trust_file()), 0o600);
    assert_eq!(mode(place.trust_file().parent().unwrap()), 0o700);
    // Given again over a link that was left there: the link goes.
    std::fs::remove_file(place.trust_file()).unwrap();
    symlink(place.path("s.py"), place.trust_file()).unwrap();
    place.trust();
    assert_eq!(place.refusal(), "");
    assert_eq!(
        std::fs::read_to_string(place.path("s.py")).unwrap(),
        "print(1)\n"
    );
}

#[test]
fn the_refusal_names_both_ways() {
    let place = Place::new(TEXT);
    insta::assert_snapshot!(place.refusal(), @r"
    error: DIR/project/p.yaml runs its own programs in stages `make`, `count`, and it is not trusted yet
      = help: `genius trust DIR/project/p.yaml` shows them and lets this exact file run them from now on; `genius run --allow-commands` lets one run
    ");
    assert_eq!(stages(&["a".to_owned()]), "stage `a`");
    let five: Vec<String> = ["a", "b", "c", "d", "e"].map(str::to_owned).to_vec();
    assert_eq!(stages(&five), "stages `a`, `b`, `c` and 2 more");
}

#[test]
fn a_pipeline_without_commands_needs_none() {
    let text =
        "version: 1\nname: n\nstages:\n  q: { uses: queries, with: { source: { path: s.py } } }\n";
    let mut place = Place::new(text);
    assert_eq!(place.trust(), "");
    assert!(!place.dir.path().join("home").exists());
    place.environment.folders.genius = None;
    assert_eq!(place.refusal(), "", "not even a home folder");
}
