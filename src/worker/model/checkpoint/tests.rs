//! Which weights are read of a folder, and which folders are refused.

use super::*;
use crate::model::config::CONFIG_FILE;
use safetensors::tensor::TensorView;

/// A folder whose files hold tensors of one f32 each.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new(files: &[(&str, &[(&str, f32)])]) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        for (name, tensors) in files {
            folder.put(name, &weights(tensors));
        }
        folder
    }

    fn put(&self, name: &str, bytes: &[u8]) -> &Self {
        std::fs::write(self.0.path().join(name), bytes).unwrap();
        self
    }

    fn index(&self, map: &[(&str, &str)]) -> &Self {
        let map: BTreeMap<_, _> = map.iter().copied().collect();
        self.put(
            INDEX_FILE,
            serde_json::json!({ "weight_map": map })
                .to_string()
                .as_bytes(),
        )
    }

    fn open(&self) -> Result<Checkpoint, String> {
        let folder = self.0.path().display().to_string();
        Checkpoint::open(self.0.path()).map_err(|e| e.to_string().replace(&folder, "m"))
    }

    /// Every tensor's value.
    fn values(&self) -> BTreeMap<String, f32> {
        let checkpoint = self.open().unwrap();
        let mut buffer = Vec::new();
        let mut values = BTreeMap::new();
        for (name, info) in checkpoint.tensors() {
            checkpoint.read(info, &mut buffer).unwrap();
            let value = f32::from_le_bytes(buffer[..].try_into().unwrap());
            values.insert(name.clone(), value);
        }
        values
    }

    fn refusal(&self) -> String {
        self.open().unwrap_err()
    }
}

fn weights(tensors: &[(&str, f32)]) -> Vec<u8> {
    let bytes: Vec<[u8; 4]> = tensors.iter().map(|(_, v)| v.to_le_bytes()).collect();
    let views = tensors
        .iter()
        .zip(&bytes)
        .map(|((name, _), b)| (*name, TensorView::new(Dtype::F32, vec![1], b).unwrap()));
    safetensors::serialize(views, None).unwrap()
}

fn map(list: &[(&str, f32)]) -> BTreeMap<String, f32> {
    list.iter().map(|(n, v)| ((*n).to_owned(), *v)).collect()
}

const ONE: &str = "model-00001-of-00002.safetensors";
const TWO: &str = "model-00002-of-00002.safetensors";

#[test]
fn the_index_decides_and_strays_are_not_read() {
    let folder = Folder::new(&[
        (ONE, &[("a", 1.0)]),
        (TWO, &[("b", 2.0)]),
        ("zz.safetensors", &[("a", 9.0), ("b", 9.0)]),
        ("consolidated.safetensors", &[("a", 9.0), ("tok", 9.0)]),
        ("model.fp16.safetensors", &[("a", 9.0)]),
    ]);
    folder.index(&[("a", ONE), ("b", TWO)]);
    std::fs::create_dir(folder.0.path().join("original")).unwrap();
    folder.put("original/consolidated.00.safetensors", b"");
    assert_eq!(folder.values(), map(&[("a", 1.0), ("b", 2.0)]));
    let open = folder.open().unwrap();
    assert_eq!(open.files().len(), 2);
    assert_eq!(
        open.strays(),
        [
            "consolidated.safetensors",
            "model.fp16.safetensors",
            "zz.safetensors"
        ]
    );
}

/// The later file used to win.
#[test]
fn a_tensor_in_two_files_is_refused() {
    let folder = Folder::new(&[(ONE, &[("a", 1.0)]), (TWO, &[("a", 9.0), ("b", 2.0)])]);
    folder.index(&[("a", ONE), ("b", TWO)]);
    insta::assert_snapshot!(
        folder.refusal(),
        @"m: both model-00001-of-00002.safetensors and model-00002-of-00002.safetensors hold the tensor `a`"
    );
    std::fs::remove_file(folder.0.path().join(INDEX_FILE)).unwrap();
    assert!(folder.refusal().contains("hold the tensor `a`"));
}

#[test]
fn a_tensor_that_the_index_does_not_name_is_refused() {
    let folder = Folder::new(&[(ONE, &[("a", 1.0)]), (TWO, &[("b", 2.0), ("c", 3.0)])]);
    folder.index(&[("a", ONE), ("b", TWO)]);
    insta::assert_snapshot!(
        folder.refusal(),
        @"m/model-00002-of-00002.safetensors holds the tensor `c`, which model.safetensors.index.json does not name"
    );
    // Except for files that are never read.
    let folder = Folder::new(&[(
        ONE,
        &[
            ("a", 1.0),
            ("model.layers.0.self_attn.rotary_emb.inv_freq", 3.0),
        ],
    )]);
    folder.index(&[("a", ONE)]);
    assert!(folder.open().is_ok());
}

#[test]
fn an_index_that_is_wrong_is_refused_by_name() {
    let folder = Folder::new(&[(ONE, &[("a", 1.0)]), (TWO, &[("b", 2.0)])]);
    let refusal = |text: &str| folder.put(INDEX_FILE, text.as_bytes()).refusal();
    let to = |file: &str| folder.index(&[("a", ONE), ("b", file)]).refusal();
    insta::assert_snapshot!(to("model-3.safetensors"), @"m/model.safetensors.index.json names model-3.safetensors, which is not there");
    insta::assert_snapshot!(to("../x.safetensors"), @"m/model.safetensors.index.json: names the file `../x.safetensors`, which is not in its folder");
    for file in [
        "/etc/x.safetensors",
        "sub/x.safetensors",
        "..",
        ".",
        "",
        "./model-00002-of-00002.safetensors",
        "model-00002-of-00002.safetensors/",
        "a\\b.safetensors",
        "\0.safetensors",
    ] {
        let words = to(file);
        assert!(
            words.ends_with("which is not in its folder"),
            "{file}: {words}"
        );
    }
    insta::assert_snapshot!(to(CONFIG_FILE), @"m/model.safetensors.index.json: weight_map.b: `config.json` is not a *.safetensors, and other formats are not read");
    insta::assert_snapshot!(
        folder.index(&[("a", ONE), ("b", TWO), ("c", TWO)]).refusal(),
        @"m/model.safetensors.index.json lists the tensor `c` in model-00002-of-00002.safetensors, which does not have it"
    );
    insta::assert_snapshot!(refusal("{}"), @"m/model.safetensors.index.json: weight_map: it is missing");
    insta::assert_snapshot!(refusal(r#"{"weight_map": {}}"#), @"m/model.safetensors.index.json: weight_map: it names no tensor");
    insta::assert_snapshot!(refusal(r#"{"weight_map": [1]}"#), @"m/model.safetensors.index.json: weight_map: a list is not an object");
    insta::assert_snapshot!(refusal(r#"{"weight_map": {"a": 1}}"#), @"m/model.safetensors.index.json: weight_map.a: 1 is not the name of a file");
    let twice = format!(r#"{{"weight_map": {{"a": "{ONE}", "b": "{TWO}", "a": "{TWO}"}}}}"#);
    assert!(refusal(&twice).contains("the key `a` is given twice"));
    assert!(refusal("not JSON").starts_with("m/model.safetensors.index.json is damaged"));
}

#[test]
fn two_sets_of_weights_are_refused() {
    let both = [
        (WEIGHTS_FILE, &[("a", 1.0)][..]),
        (ONE, &[("a", 2.0)]),
        (TWO, &[("b", 2.0)]),
    ];
    let folder = Folder::new(&both);
    insta::assert_snapshot!(folder.refusal(), @"m holds two sets of weights: model.safetensors and model-00001-of-00002.safetensors");
    folder.index(&[("a", ONE), ("b", TWO)]);
    insta::assert_snapshot!(folder.refusal(), @"m holds two sets of weights: model.safetensors and the files that model.safetensors.index.json names");
    let sizes = Folder::new(&[
        ("model-00001-of-00001.safetensors", &[("a", 1.0)]),
        (ONE, &[("a", 1.0)]),
    ]);
    assert!(sizes.refusal().contains("two sets of weights"));
    let widths = Folder::new(&[
        ("model-1-of-2.safetensors", &[("a", 1.0)]),
        (ONE, &[("a", 1.0)]),
        (TWO, &[("b", 1.0)]),
    ]);
    assert!(widths.refusal().contains("two sets of weights"));
}

#[test]
fn a_numbered_set_needs_no_index_where_it_is_complete() {
    let one = Folder::new(&[("model-00001-of-00001.safetensors", &[("a", 1.0)])]);
    assert_eq!(one.values(), map(&[("a", 1.0)]));
    let two = Folder::new(&[(ONE, &[("a", 1.0)]), (TWO, &[("b", 2.0)])]);
    assert_eq!(two.values(), map(&[("a", 1.0), ("b", 2.0)]));
    let gap = Folder::new(&[(TWO, &[("b", 2.0)])]);
    insta::assert_snapshot!(gap.refusal(), @"m holds model-00002-of-00002.safetensors, and model-00001-of-00002.safetensors is not there");
    let huge = Folder::new(&[("model-00001-of-4294967295.safetensors", &[("b", 2.0)])]);
    assert!(huge.refusal().contains("is not there"));
    for name in [
        "model-00003-of-00002.safetensors",
        "model-00000-of-00001.safetensors",
        "model-00000-of-00000.safetensors",
        "model--of-.safetensors",
        "model-0000a-of-00001.safetensors",
    ] {
        assert!(
            Folder::new(&[(name, &[("b", 2.0)])]).open().is_err(),
            "{name}"
        );
    }
}

#[test]
fn what_is_not_a_model_is_refused_with_a_remedy() {
    let failure = |files: &[&str]| {
        let folder = Folder::new(&[]);
        for name in files {
            folder.put(name, &weights(&[("a", 1.0)]));
        }
        let failure: genius::protocol::Failure =
            Checkpoint::open(folder.0.path()).unwrap_err().into();
        let shown = folder.0.path().display().to_string();
        (
            failure.message.replace(&shown, "m"),
            failure.hint.unwrap_or_default(),
        )
    };
    let (message, hint) = failure(&["consolidated.safetensors"]);
    insta::assert_snapshot!(message, @"m holds neither model.safetensors nor model.safetensors.index.json nor files model-00001-of-0000N.safetensors, but consolidated.safetensors");
    assert!(hint.contains("original layout"), "{hint}");
    let (message, hint) = failure(&["model.fp16.safetensors"]);
    assert!(message.ends_with("but model.fp16.safetensors"), "{message}");
    assert!(hint.contains("rename"), "{hint}");
    let (message, hint) = failure(&["pytorch_model.bin"]);
    insta::assert_snapshot!(message, @"m holds no *.safetensors");
    assert!(hint.contains("save the model with safetensors"), "{hint}");
    for files in [
        &["adapter_config.json", "adapter_model.safetensors"][..],
        &["adapter_config.json", "model.safetensors"],
        &["adapter_model.safetensors"],
        &["adapter_model.bin", "model.safetensors"],
    ] {
        let (message, hint) = failure(files);
        assert!(message.contains("adapter (LoRA)"), "{message}");
        assert!(hint.contains("merge"), "{hint}");
    }
}

/// A hub snapshot is made of links.
#[test]
fn links_are_followed_and_broken_ones_are_missing() {
    let folder = Folder::new(&[("blob", &[("a", 1.0)])]);
    let path = folder.0.path().join(WEIGHTS_FILE);
    std::os::unix::fs::symlink("blob", &path).unwrap();
    assert_eq!(folder.values(), map(&[("a", 1.0)]));
    std::fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("gone", &path).unwrap();
    assert!(folder.refusal().contains("no *.safetensors"));
    folder.index(&[("a", WEIGHTS_FILE)]);
    assert!(folder.refusal().contains("which is not there"));
}

#[test]
fn damaged_headers_are_refused_by_name() {
    let with = |bytes: &[u8]| {
        let folder = Folder::new(&[]);
        folder.put(WEIGHTS_FILE, bytes).refusal()
    };
    let header = |json: &str, data: usize| {
        let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
        bytes.extend(json.as_bytes());
        bytes.extend(vec![0; data]);
        with(&bytes)
    };
    let tensor = |shape: &str, offsets: &str| {
        format!(r#"{{"dtype":"F32","shape":{shape},"data_offsets":{offsets}}}"#)
    };
    let good = weights(&[("a", 1.0)]);
    insta::assert_snapshot!(with(&good[..good.len() - 1]), @"m/model.safetensors is damaged: it is cut short: its header promises 68 bytes, it has 67");
    for length in 0..good.len() {
        assert!(with(&good[..length]).starts_with("m/model.safetensors is damaged"));
    }
    assert!(with(&[&good[..], b"x"].concat()).contains("more than its header declares"));
    for length in [u64::MAX, 1 << 40, 100_000_001, 61] {
        let mut bytes = good.clone();
        bytes[..8].copy_from_slice(&length.to_le_bytes());
        assert!(with(&bytes).contains("is damaged"), "{length}");
    }
    for (json, data) in [
        // begin > end, an overlap, a hole, beyond the end
        (format!(r#"{{"a":{}}}"#, tensor("[1]", "[4,0]")), 4),
        (
            format!(
                r#"{{"a":{},"b":{}}}"#,
                tensor("[2]", "[0,8]"),
                tensor("[1]", "[4,8]")
            ),
            8,
        ),
        (format!(r#"{{"a":{}}}"#, tensor("[1]", "[4,8]")), 8),
        (format!(r#"{{"a":{}}}"#, tensor("[2]", "[0,8]")), 4),
        // shapes that wrap around or do not fit
        (
            format!(r#"{{"a":{}}}"#, tensor("[4611686018427387904,4]", "[0,0]")),
            0,
        ),
        (
            format!(r#"{{"a":{}}}"#, tensor("[18446744073709551615,2]", "[0,4]")),
            4,
        ),
        (format!(r#"{{"a":{}}}"#, tensor("[3]", "[0,4]")), 4),
        (
            format!(r#"{{"a":{}}}"#, tensor("[1]", "[0,18446744073709551615]")),
            4,
        ),
        (format!(r#"{{"a":{}}}"#, tensor("[-1]", "[0,4]")), 4),
        // a name given twice, an unknown format, other JSON
        (
            format!(
                r#"{{"a":{},"a":{}}}"#,
                tensor("[1,2]", "[0,8]"),
                tensor("[2,1]", "[0,8]")
            ),
            8,
        ),
        (
            r#"{"a":{"dtype":"F31","shape":[1],"data_offsets":[0,4]}}"#.into(),
            4,
        ),
        ("[]".into(), 0),
        ("{".into(), 0),
    ] {
        let words = header(&json, data);
        assert!(
            words.starts_with("m/model.safetensors is damaged"),
            "{json}: {words}"
        );
    }
    assert!(with(b"version https://git-lfs.github.com/spec/v1\n").contains("is a Git LFS pointer"));
}

/// A map of a file that is cut short would end the process.
#[test]
fn a_file_cut_short_while_it_is_open_is_an_error() {
    let folder = Folder::new(&[(WEIGHTS_FILE, &[("a", 1.0)])]);
    let open = folder.open().unwrap();
    std::fs::File::options()
        .write(true)
        .open(folder.0.path().join(WEIGHTS_FILE))
        .unwrap()
        .set_len(8)
        .unwrap();
    let error = open
        .read(&open.tensors()["a"], &mut Vec::new())
        .unwrap_err();
    assert!(error.to_string().contains("cut short while it was read"));
}

#[test]
fn mistralrs_is_kept_from_other_weights() {
    let check = |files: &[(&str, &[(&str, f32)])], index: &[(&str, &str)]| {
        let folder = Folder::new(files);
        if !index.is_empty() {
            folder.index(index);
        }
        folder.open().unwrap().check_for_mistralrs().is_ok()
    };
    let a: &[(&str, f32)] = &[("a", 1.0)];
    assert!(check(&[(WEIGHTS_FILE, a)], &[]));
    assert!(check(&[(ONE, a), (TWO, &[("b", 2.0)])], &[]));
    assert!(check(&[(WEIGHTS_FILE, a), ("x.safetensors", a)], &[]));
    assert!(!check(
        &[(WEIGHTS_FILE, a), ("consolidated.safetensors", a)],
        &[]
    ));
    assert!(!check(
        &[("one.safetensors", a)],
        &[("a", "one.safetensors")]
    ));
    assert!(!check(&[(ONE, a), (TWO, &[("a", 9.0)])], &[("a", ONE)]));
}
