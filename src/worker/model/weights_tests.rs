//! Tensors of a folder: read by name and shape, and written.

use super::*;
use crate::model::checkpoint::INDEX_FILE;

fn shapes(list: &[(&str, &[i64])]) -> Shapes {
    list.iter()
        .map(|(n, s)| ((*n).to_owned(), s.to_vec()))
        .collect()
}

fn tensors(list: &[(&str, &[i64])]) -> Tensors {
    list.iter()
        .map(|(n, s)| {
            let count = s.iter().product::<i64>();
            let t = Tensor::arange(count, (Kind::Float, Device::Cpu)).reshape(*s) / 7.0;
            ((*n).to_owned(), t)
        })
        .collect()
}

fn read_f32(folder: &Path, expected: &Shapes) -> Result<Tensors, String> {
    read(folder, expected, |_| false, Device::Cpu, Kind::Float)
        .map_err(|e| e.to_string().replace(&folder.display().to_string(), "m"))
}

#[test]
fn what_is_written_is_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let list: &[(&str, &[i64])] = &[("a", &[2, 3]), ("b", &[4])];
    for kind in [Kind::Float, Kind::BFloat16, Kind::Half] {
        write_tensors(&dir.path().join(WEIGHTS_FILE), &tensors(list), kind).unwrap();
        let back = read_f32(dir.path(), &shapes(list)).unwrap();
        for (name, tensor) in tensors(list) {
            assert_eq!(
                back[&name],
                tensor.to_kind(kind).to_kind(Kind::Float),
                "{name} {kind:?}"
            );
        }
    }
}

#[test]
fn a_sharded_set_is_read_through_its_index() {
    let dir = tempfile::tempdir().unwrap();
    let write = |file: &str, list: &[(&str, &[i64])]| {
        write_tensors(&dir.path().join(file), &tensors(list), Kind::Float).unwrap();
    };
    write("one.safetensors", &[("a", &[2])]);
    write("two.safetensors", &[("b", &[3])]);
    let index = dir.path().join(INDEX_FILE);
    std::fs::write(
        &index,
        r#"{"weight_map":{"a":"one.safetensors","b":"two.safetensors"}}"#,
    )
    .unwrap();
    let back = read_f32(dir.path(), &shapes(&[("a", &[2]), ("b", &[3])])).unwrap();
    assert_eq!(back.len(), 2);

    std::fs::write(&index, r#"{"weight_map":{"a":"../one.safetensors"}}"#).unwrap();
    insta::assert_snapshot!(
        read_f32(dir.path(), &shapes(&[("a", &[2])])).unwrap_err(),
        @"m/model.safetensors.index.json: names the file `../one.safetensors`, which is not in its folder"
    );
}

#[test]
fn what_does_not_fit_is_named() {
    let dir = tempfile::tempdir().unwrap();
    insta::assert_snapshot!(
        read_f32(dir.path(), &shapes(&[])).unwrap_err(),
        @"m holds no *.safetensors"
    );
    let file = dir.path().join(WEIGHTS_FILE);
    write_tensors(&file, &tensors(&[("a", &[2, 3]), ("x", &[1])]), Kind::Float).unwrap();
    let error = |list: &[(&str, &[i64])]| read_f32(dir.path(), &shapes(list)).unwrap_err();
    insta::assert_snapshot!(
        error(&[("a", &[3, 2]), ("x", &[1])]),
        @"m/model.safetensors: tensor `a` has the shape [2, 3]; the configuration asks for [3, 2]"
    );
    insta::assert_snapshot!(
        error(&[("a", &[2, 3]), ("b", &[1]), ("x", &[1])]),
        @"m: the configuration asks for tensors that the weights lack: b"
    );
    insta::assert_snapshot!(
        error(&[("a", &[2, 3])]),
        @"m: the weights hold tensors that the configuration does not ask for: x"
    );
    std::fs::write(&file, b"not a safetensors file").unwrap();
    assert!(error(&[]).starts_with("m/model.safetensors is damaged: "));
}

#[test]
fn other_number_formats_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let view = safetensors::tensor::TensorView::new(Dtype::I32, vec![1], &[0; 4]).unwrap();
    let bytes = safetensors::serialize([("a", view)], None).unwrap();
    std::fs::write(dir.path().join(WEIGHTS_FILE), bytes).unwrap();
    insta::assert_snapshot!(
        read_f32(dir.path(), &shapes(&[("a", &[1])])).unwrap_err(),
        @"m/model.safetensors: tensor `a` is I32; F32, BF16 and F16 are read"
    );
}
