//! What differs between two sets of weights: by their headers, and where both are here, by their numbers.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufReader, Read, Seek, SeekFrom};

use rayon::prelude::*;
use serde::Serialize;

use crate::codec::Tensor;
use crate::codec::distance::{self, Dtype};
use crate::error::{Context, Result};
use crate::lineage::{Lineage, Weights};
use crate::model_yaml::{Model, Role};
use crate::ops::Ctx;
use crate::ops::weights::{self, WeightsFile};

/// Read at a time where bytes are only compared.
const CHUNK: usize = 64 * 1024;

/// What differs in the weights.
#[derive(Debug, Default, Serialize)]
pub struct WeightsChange {
    /// Whether anything differs.
    pub changed: bool,
    /// The old side, as recorded.
    pub old: Option<Weights>,
    /// The new side, as recorded.
    pub new: Option<Weights>,
    /// Tensors; `None` when the content of a side is not here or its tensors cannot be told.
    pub tensors: Option<Vec<TensorChange>>,
    /// Tensors of which nothing differs.
    pub unchanged: u64,
    /// Tensors of equal type and shape whose bytes cannot be read one by one, as compressed ones: they may differ or not.
    pub not_compared: u64,
    /// Why there are no tensors.
    pub unknown: Option<String>,
}

/// A tensor that differs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TensorChange {
    /// Its name.
    pub name: String,
    /// Type and shape on the old side.
    pub old: Option<String>,
    /// Type and shape on the new side.
    pub new: Option<String>,
    /// How far its numbers moved, where type and shape are equal and the type can be compared.
    pub moved: Option<Moved>,
}

/// How far a tensor moved.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Moved {
    /// Euclidean norm of the difference, divided by the one of the old side.
    pub relative_l2: f64,
    /// Largest absolute difference of an element.
    pub max_abs: f64,
    /// Elements that are not a number on either side.
    pub nan: u64,
}

/// Compares the weights of two versions.
pub(super) fn compare(ctx: &Ctx, model: &Model, old: &Lineage, new: &Lineage) -> Result<WeightsChange> {
    let mut change =
        WeightsChange { old: old.weights.clone(), new: new.weights.clone(), ..WeightsChange::default() };
    let digest = |weights: &Option<Weights>| weights.as_ref().map(|weights| weights.sha256);
    change.changed = digest(&change.old) != digest(&change.new);
    if !change.changed {
        return Ok(change);
    }
    let sides = Tensors::load(ctx, model, old).and_then(|old| Ok((old, Tensors::load(ctx, model, new)?)));
    match sides {
        Ok((old, new)) if !old.0.is_empty() && !new.0.is_empty() => {
            let Differing { tensors, unchanged, not_compared } = differing(ctx, &old, &new)?;
            change.tensors = Some(tensors);
            change.unchanged = unchanged;
            change.not_compared = not_compared;
        }
        Ok(_) => change.unknown = Some("their formats do not tell tensors without running code".to_owned()),
        Err(error) => change.unknown = Some(error.one_line()),
    }
    Ok(change)
}

/// The tensors of a version by name, with the file that holds each.
struct Tensors(BTreeMap<String, (WeightsFile, Tensor)>);

impl Tensors {
    fn load(ctx: &Ctx, model: &Model, lineage: &Lineage) -> Result<Tensors> {
        let files = weights::files(ctx, lineage.role(Role::Weights))?;
        let mut headers = weights::headers(ctx, &files)?;
        let several = headers.len() > 1;
        let mut tensors = BTreeMap::new();
        for file in files {
            let Some(header) = headers.remove(&file.path) else { continue };
            // Shards of one set have no name twice; other files that do are told apart by their own names.
            let path = model.relative(&file.path).to_owned();
            for tensor in header.tensors {
                let taken = several && tensors.contains_key(&tensor.name);
                let name = if taken { format!("{path}: {}", tensor.name) } else { tensor.name.clone() };
                tensors.insert(name, (file.clone(), tensor));
            }
        }
        Ok(Tensors(tensors))
    }
}

/// How two sets of tensors differ.
struct Differing {
    tensors: Vec<TensorChange>,
    unchanged: u64,
    not_compared: u64,
}

/// What a look at one tensor showed.
enum Look {
    Same,
    Differs(TensorChange),
    NotCompared,
}

fn differing(ctx: &Ctx, old: &Tensors, new: &Tensors) -> Result<Differing> {
    let names: BTreeSet<&String> = old.0.keys().chain(new.0.keys()).collect();
    let names: Vec<&String> = names.into_iter().collect();
    // The parts that threads may share; the repository handle is not one.
    let open = Opener { cache: &ctx.cache, interrupt: &ctx.interrupt };
    let look = |name: &String| -> Result<Look> {
        open.interrupt.check()?;
        let (a, b) = (old.0.get(name), new.0.get(name));
        let shown = |side: Option<&(WeightsFile, Tensor)>| side.map(|(_, tensor)| describe(tensor));
        let mut change = TensorChange { name: name.clone(), old: shown(a), new: shown(b), moved: None };
        let (Some(a), Some(b)) = (a, b) else { return Ok(Look::Differs(change)) };
        if change.old != change.new {
            return Ok(Look::Differs(change));
        }
        Ok(match open.distance(a, b)? {
            None => Look::NotCompared,
            Some(Distance::None) => Look::Same,
            Some(Distance::Bytes) => Look::Differs(change),
            Some(Distance::Numbers(moved)) => {
                change.moved = Some(moved);
                Look::Differs(change)
            }
        })
    };
    let looks: Vec<Look> = names.par_iter().map(|name| look(name)).collect::<Result<_>>()?;
    let mut found = Differing { tensors: Vec::new(), unchanged: 0, not_compared: 0 };
    for look in looks {
        match look {
            Look::Same => found.unchanged += 1,
            Look::NotCompared => found.not_compared += 1,
            Look::Differs(change) => found.tensors.push(change),
        }
    }
    Ok(found)
}

/// `F32 [384, 384]`
fn describe(tensor: &Tensor) -> String {
    let shape: Vec<String> = tensor.shape.iter().map(u64::to_string).collect();
    format!("{} [{}]", tensor.dtype, shape.join(", "))
}

enum Distance {
    None,
    Numbers(Moved),
    Bytes,
}

struct Opener<'a> {
    cache: &'a crate::cache::Cache,
    interrupt: &'a crate::progress::Interrupt,
}

impl Opener<'_> {
    /// How two tensors of equal type and shape differ. `None` when their bytes cannot be found.
    fn distance(&self, a: &(WeightsFile, Tensor), b: &(WeightsFile, Tensor)) -> Result<Option<Distance>> {
        if a.0.digest == b.0.digest {
            return Ok(Some(Distance::None));
        }
        let (Some(old), Some(new)) = (self.bytes(a)?, self.bytes(b)?) else { return Ok(None) };
        let length = a.1.data.as_ref().map_or(0, |range| range.end - range.start);
        let ((mut old, mut new), path) = ((old, new), b.0.path.as_path());
        if let Some(dtype) = Dtype::from_name(&a.1.dtype) {
            let moved = distance::distance(&mut old, &mut new, length, dtype).context(path, "read")?;
            // Elements that are no number have no distance; then only the bytes tell.
            if moved.max_abs > 0.0 || (moved.nan > 0 && !self.same(a, b)?) {
                let (relative_l2, max_abs, nan) = (moved.relative_l2, moved.max_abs, moved.nan);
                return Ok(Some(Distance::Numbers(Moved { relative_l2, max_abs, nan })));
            }
            return Ok(Some(Distance::None));
        }
        let equal = same_bytes(&mut old, &mut new).context(path, "read")?;
        Ok(Some(if equal { Distance::None } else { Distance::Bytes }))
    }

    fn same(&self, a: &(WeightsFile, Tensor), b: &(WeightsFile, Tensor)) -> Result<bool> {
        let (Some(mut old), Some(mut new)) = (self.bytes(a)?, self.bytes(b)?) else { return Ok(false) };
        same_bytes(&mut old, &mut new).context(b.0.path.as_path(), "read")
    }

    fn bytes(&self, (file, tensor): &(WeightsFile, Tensor)) -> Result<Option<impl Read + use<>>> {
        let (Some(range), Some(mut object)) = (&tensor.data, self.cache.open(&file.digest)?) else {
            return Ok(None);
        };
        object.seek(SeekFrom::Start(range.start)).context(file.path.as_path(), "read")?;
        Ok(Some(BufReader::with_capacity(CHUNK, object).take(range.end - range.start)))
    }
}

fn same_bytes(a: &mut impl Read, b: &mut impl Read) -> std::io::Result<bool> {
    let (mut left, mut right) = (vec![0; CHUNK], vec![0; CHUNK]);
    loop {
        let length = a.read(&mut left)?;
        if length == 0 {
            return Ok(b.read(&mut right[..1])? == 0);
        }
        b.read_exact(&mut right[..length])?;
        if left[..length] != right[..length] {
            return Ok(false);
        }
    }
}
