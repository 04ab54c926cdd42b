//! `--resources gpu=1,memory_gb=20,cores=2`.

use crate::spec::Resources;

/// Reads what stages may share.
///
/// # Errors
/// When it does not have that form.
pub fn parse(text: &str) -> Result<Resources, String> {
    let mut resources = Resources::default();
    for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        let (name, value) = part
            .split_once('=')
            .ok_or_else(|| format!("`{part}` is not NAME=N, as in `gpu=1,memory_gb=20,cores=2`"))?;
        let whole = || {
            value
                .parse::<u32>()
                .map_err(|_| format!("`{name}` takes a whole number, found `{value}`"))
        };
        match name {
            "gpu" => resources.gpu = Some(whole()?),
            "cores" => {
                let cores = whole()?;
                if cores == 0 {
                    return Err("`cores` takes at least 1: every stage needs one".to_owned());
                }
                resources.cores = Some(cores);
            }
            "memory_gb" => {
                let number = value
                    .parse::<f64>()
                    .ok()
                    .filter(|n| n.is_finite() && *n >= 0.0);
                resources.memory_gb = Some(
                    number.ok_or_else(|| format!("`memory_gb` takes a number, found `{value}`"))?,
                );
            }
            _ => {
                return Err(format!(
                    "`{name}` is not a resource: use gpu, memory_gb or cores"
                ));
            }
        }
    }
    Ok(resources)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_are_named_numbers() {
        let all = parse("gpu=1,memory_gb=20.5,cores=2").unwrap();
        assert_eq!(
            (all.gpu, all.memory_gb, all.cores),
            (Some(1), Some(20.5), Some(2))
        );
        assert_eq!(parse("cores=3").unwrap().gpu, None);
        insta::assert_snapshot!(parse("cores=0").unwrap_err(), @"`cores` takes at least 1: every stage needs one");
        insta::assert_snapshot!(parse("cpu=1").unwrap_err(), @"`cpu` is not a resource: use gpu, memory_gb or cores");
        insta::assert_snapshot!(parse("gpu").unwrap_err(), @"`gpu` is not NAME=N, as in `gpu=1,memory_gb=20,cores=2`");
        insta::assert_snapshot!(parse("cores=two").unwrap_err(), @"`cores` takes a whole number, found `two`");
        insta::assert_snapshot!(parse("memory_gb=nan").unwrap_err(), @"`memory_gb` takes a number, found `nan`");
    }
}
