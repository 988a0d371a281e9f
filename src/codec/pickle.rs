//! The tensors that a PyTorch pickle describes, and the functions and classes that any pickle names, found without running it.
//!
//! Source: the opcodes of Python's `pickletools`, protocols 0 to 5. Nothing is imported or called. What the reader knows is
//! data: containers, texts, numbers, and the three calls that every state dict is made of. All other calls leave a value
//! that is only known to exist. Values are kept once and refer to each other by number, so that a small pickle cannot
//! describe a large structure.

mod harmless;
mod machine;

pub(super) use harmless::is_harmless;
use machine::Machine;

/// Containers nested deeper are not looked into; it also ends the walk around a cycle.
const MAX_DEPTH: usize = 32;
/// Bytes of all that is found, each step counted too: a value can be found in many places.
const MAX_FOUND: usize = 64 << 20;
/// What a step counts for, besides the name it leads to.
const STEP_BYTES: usize = 16;
/// What a tensor counts for, besides its name and shape.
const TENSOR_BYTES: usize = 128;

/// A tensor that the pickle describes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Described {
    /// The keys that lead to it, joined with dots.
    pub(super) name: String,
    /// PyTorch's class of the storage: `FloatStorage`.
    pub(super) class: String,
    /// The storage's name.
    pub(super) storage: String,
    /// Elements of the whole storage.
    pub(super) count: u64,
    /// The first element in the storage.
    pub(super) offset: u64,
    /// The dimensions, the fastest last in a tensor without gaps.
    pub(super) shape: Vec<u64>,
    /// For each dimension, the elements from one index to the next.
    pub(super) strides: Vec<u64>,
}

/// All tensors that can be reached from the pickle's value through containers with plain keys. `None` when the pickle is
/// damaged or too large.
pub(super) fn tensors(pickle: &[u8]) -> Option<Vec<Described>> {
    let (values, root) = Machine::run(pickle)?;
    let mut walk = Walk { values: &values, room: MAX_FOUND, found: Vec::new() };
    walk.visit(root, "", 0)?;
    Some(walk.found)
}

/// A function or class that a pickle names, which Python looks up and may call when it loads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Global {
    /// Module and name, as the pickle has them, or why they cannot be told. Untrusted text.
    pub(super) name: String,
    /// Where it is named first, in bytes from the start of the pickle.
    pub(super) at: usize,
}

/// What a pickle names.
#[derive(Debug)]
pub(super) struct Named {
    /// Each once, in the order of the first time.
    pub(super) globals: Vec<Global>,
    /// Where what follows the pickle begins; `None` when it could not be followed to its end.
    pub(super) end: Option<usize>,
    /// The last opcode that was looked at.
    pub(super) stopped: usize,
    /// Whether Python might go on where the walk stopped.
    pub(super) lost: bool,
    /// Whether the data ended before the pickle did.
    pub(super) ran_out: bool,
}

/// Lists what a pickle names. Of one that Python cannot load to its end, everything up to where Python stops.
pub(super) fn names(pickle: &[u8]) -> Named {
    Machine::names(pickle)
}

/// The number of a value.
type Id = usize;

enum Value {
    /// Only known to exist.
    Unknown,
    Text(String),
    Number(i64),
    /// Module and name of a function or class.
    Global(String),
    /// A list or tuple.
    List(Vec<Id>),
    Map(Vec<(Id, Id)>),
    /// What `torch.save` writes in place of a storage.
    Storage {
        class: Id,
        key: Id,
        count: u64,
    },
    Tensor {
        storage: Id,
        offset: u64,
        shape: Id,
        strides: Id,
    },
}

/// Looks for tensors in a value.
struct Walk<'a> {
    values: &'a [Value],
    /// Bytes that may still be found.
    room: usize,
    found: Vec<Described>,
}

impl Walk<'_> {
    /// Takes the tensors in a value that lies at `name`. `None` when there is no room.
    fn visit(&mut self, id: Id, name: &str, depth: usize) -> Option<()> {
        self.spend(STEP_BYTES)?;
        match &self.values[id] {
            Value::Tensor { storage, offset, shape, strides } => {
                self.spend(TENSOR_BYTES + name.len())?;
                let Some(tensor) = self.describe(name, *storage, *offset, *shape, *strides) else {
                    return Some(());
                };
                self.spend(size_of::<u64>() * (tensor.shape.len() + tensor.strides.len()))?;
                self.found.push(tensor);
            }
            Value::Map(pairs) if depth < MAX_DEPTH => {
                for &(key, value) in pairs {
                    let number;
                    let key = match &self.values[key] {
                        Value::Text(key) => key,
                        Value::Number(key) => {
                            number = key.to_string();
                            &number
                        }
                        _ => continue,
                    };
                    self.visit_below(value, name, key, depth)?;
                }
            }
            Value::List(items) if depth < MAX_DEPTH => {
                for (at, &item) in items.iter().enumerate() {
                    self.visit_below(item, name, &at.to_string(), depth)?;
                }
            }
            _ => {}
        }
        Some(())
    }

    fn visit_below(&mut self, id: Id, name: &str, key: &str, depth: usize) -> Option<()> {
        self.spend(name.len() + key.len())?;
        let below = if name.is_empty() { key.to_owned() } else { format!("{name}.{key}") };
        self.visit(id, &below, depth + 1)
    }

    fn spend(&mut self, bytes: usize) -> Option<()> {
        self.room = self.room.checked_sub(bytes)?;
        Some(())
    }

    /// `None` when the arguments are not what they must be.
    fn describe(&self, name: &str, storage: Id, offset: u64, shape: Id, strides: Id) -> Option<Described> {
        let Value::Storage { class, key, count } = self.values[storage] else { return None };
        let (Value::Global(class), Value::Text(key)) = (&self.values[class], &self.values[key]) else {
            return None;
        };
        let shape = self.sizes(shape)?;
        let strides = self.sizes(strides).filter(|strides| strides.len() == shape.len())?;
        Some(Described {
            name: name.to_owned(),
            class: class.strip_prefix("torch ")?.to_owned(),
            storage: key.clone(),
            count,
            offset,
            shape,
            strides,
        })
    }

    fn sizes(&self, list: Id) -> Option<Vec<u64>> {
        let Value::List(list) = &self.values[list] else { return None };
        list.iter().map(|&id| size(self.values, id)).collect()
    }
}

/// A number that can be a size.
fn size(values: &[Value], id: Id) -> Option<u64> {
    match values[id] {
        Value::Number(number) => u64::try_from(number).ok(),
        _ => None,
    }
}

#[cfg(test)]
pub(super) mod tests;
