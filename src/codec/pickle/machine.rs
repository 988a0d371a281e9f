//! The stack, the memo and the opcodes.

use std::collections::{HashMap, HashSet};

use super::{Global, Id, Named, Value, size};

/// Most values and references on the stack, summed over the whole pickle. A tensor takes about twenty.
pub(super) const MAX_PUSHES: usize = 1 << 21;
/// Most bytes of the name of a function or class.
const MAX_GLOBAL: usize = 256;
/// Most different functions and classes that are noted.
const MAX_GLOBALS: usize = 4096;

/// Follows the opcodes.
///
/// It stops where Python does: at an opcode that does not exist, at the end of the data, and where the stack or the memo does
/// not have what an opcode needs. Where it gives up although Python might go on, it notes that it is `lost`.
#[derive(Default)]
pub(super) struct Machine<'a> {
    pickle: &'a [u8],
    rest: &'a [u8],
    values: Vec<Value>,
    stack: Vec<Id>,
    /// Heights of the stack at the open marks.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
    pushes: usize,
    /// Position of the opcode that is carried out.
    at: usize,
    globals: Vec<Global>,
    noted: HashSet<String>,
    lost: bool,
    /// Whether the data ended before the pickle did.
    ran_out: bool,
}

impl<'a> Machine<'a> {
    /// Returns all values, and which one the whole pickle stands for.
    pub(super) fn run(pickle: &'a [u8]) -> Option<(Vec<Value>, Id)> {
        let mut machine = Machine::new(pickle);
        let root = machine.follow()?;
        Some((machine.values, root))
    }

    /// Returns what a pickle names, as far as it can be followed.
    pub(super) fn names(pickle: &'a [u8]) -> Named {
        let mut machine = Machine::new(pickle);
        let whole = machine.follow().is_some();
        Named {
            globals: machine.globals,
            end: whole.then(|| pickle.len() - machine.rest.len()),
            stopped: machine.at,
            lost: machine.lost,
            ran_out: machine.ran_out,
        }
    }

    fn new(pickle: &'a [u8]) -> Machine<'a> {
        Machine { pickle, rest: pickle, ..Machine::default() }
    }

    fn follow(&mut self) -> Option<Id> {
        loop {
            self.at = self.pickle.len() - self.rest.len();
            match self.byte()? {
                b'.' => return self.pop(),
                opcode => self.step(opcode)?,
            }
        }
    }

    fn step(&mut self, opcode: u8) -> Option<()> {
        match opcode {
            // PROTO, FRAME
            0x80 => drop(self.take(1)?),
            0x95 => drop(self.take(8)?),
            // MARK, POP, POP_MARK, DUP
            b'(' => self.marks.push(self.stack.len()),
            b'0' if self.stack.len() == self.floor() => drop(self.pop_mark()?),
            b'0' => drop(self.pop()?),
            b'1' => drop(self.pop_mark()?),
            b'2' => self.push_id(self.top()?)?,
            // NONE, NEWTRUE, NEWFALSE, EMPTY_SET
            b'N' | 0x88 | 0x89 | 0x8f => self.push(Value::Unknown)?,
            // INT, LONG, FLOAT, PERSID
            b'I' | b'L' | b'F' | b'P' => self.push_line()?,
            // BININT1, BININT2, BININT, LONG1, LONG4
            b'K' => self.push_number(1)?,
            b'M' => self.push_number(2)?,
            b'J' => {
                let number = i32::from_le_bytes(self.array()?);
                self.push(Value::Number(number.into()))?;
            }
            0x8a => self.push_long()?,
            0x8b => self.push_bytes(4)?,
            // BINFLOAT
            b'G' => self.push_opaque(8)?,
            // SHORT_BINUNICODE, BINUNICODE, BINUNICODE8
            0x8c => self.push_text(1)?,
            b'X' => self.push_text(4)?,
            0x8d => self.push_text(8)?,
            // UNICODE, STRING, SHORT_BINSTRING, BINSTRING: Python 3 reads all of them as texts.
            b'V' => self.push_line_text("")?,
            b'S' => self.push_line_text("'\"")?,
            b'U' => self.push_text(1)?,
            b'T' => self.push_text(4)?,
            // SHORT_BINBYTES, BINBYTES, BINBYTES8 and BYTEARRAY8
            b'C' => self.push_bytes(1)?,
            b'B' => self.push_bytes(4)?,
            0x8e | 0x96 => self.push_bytes(8)?,
            // NEXT_BUFFER, READONLY_BUFFER
            0x97 => self.push(Value::Unknown)?,
            0x98 => drop(self.top()?),
            // EMPTY_TUPLE and EMPTY_LIST, TUPLE and LIST, TUPLE1 to TUPLE3
            b')' | b']' => self.push(Value::List(Vec::new()))?,
            b't' | b'l' => {
                let items = self.pop_mark()?;
                self.push(Value::List(items))?;
            }
            0x85..=0x87 => self.push_tuple(usize::from(opcode - 0x84))?,
            // EMPTY_DICT, DICT
            b'}' => self.push(Value::Map(Vec::new()))?,
            b'd' => {
                let items = self.pop_mark()?;
                self.push(Value::Map(pairs(&items)?))?;
            }
            // APPEND, APPENDS, SETITEM, SETITEMS
            b'a' => {
                let item = self.pop()?;
                self.append(&[item])?;
            }
            b'e' => {
                let items = self.pop_mark()?;
                self.append(&items)?;
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set(&[key, value])?;
            }
            b'u' => {
                let items = self.pop_mark()?;
                self.set(&items)?;
            }
            // ADDITEMS, FROZENSET
            0x90 => drop(self.pop_mark()?),
            0x91 => {
                self.pop_mark()?;
                self.push(Value::Unknown)?;
            }
            // GLOBAL, STACK_GLOBAL, INST, OBJ
            b'c' => {
                let global = self.global_lines()?;
                self.push(global)?;
            }
            0x93 => self.push_global()?,
            b'i' => {
                self.global_lines()?;
                self.pop_mark()?;
                self.push(Value::Unknown)?;
            }
            b'o' => {
                self.pop_mark()?;
                self.push(Value::Unknown)?;
            }
            // EXT1, EXT2, EXT4
            0x82 => self.push_extension(1)?,
            0x83 => self.push_extension(2)?,
            0x84 => self.push_extension(4)?,
            // PUT, BINPUT, LONG_BINPUT, MEMOIZE, GET, BINGET, LONG_BINGET
            b'p' => {
                let key = self.key_line()?;
                self.memo.insert(key, self.top()?);
            }
            b'g' => {
                let key = self.key_line()?;
                self.push_id(*self.memo.get(&key)?)?;
            }
            b'q' => self.memorise(1)?,
            b'r' => self.memorise(4)?,
            0x94 => {
                let key = u32::try_from(self.memo.len()).ok()?;
                self.memo.insert(key, self.top()?);
            }
            b'h' => self.recall(1)?,
            b'j' => self.recall(4)?,
            // BINPERSID
            b'Q' => {
                let reference = self.pop()?;
                self.push(self.storage(reference).unwrap_or(Value::Unknown))?;
            }
            // REDUCE, NEWOBJ, NEWOBJ_EX, BUILD
            b'R' => self.reduce()?,
            0x81 => self.push_object(2)?,
            0x92 => self.push_object(3)?,
            // The state of an object, such as the attributes of a dictionary, adds nothing to its content.
            b'b' => drop(self.pop()?),
            _ => return None,
        }
        Some(())
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let Some((taken, rest)) = self.rest.split_at_checked(length) else {
            self.ran_out = true;
            return None;
        };
        self.rest = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn byte(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    /// An unsigned number of at most eight bytes, the lowest first.
    fn number(&mut self, bytes: usize) -> Option<u64> {
        let mut number = [0; 8];
        number.get_mut(..bytes)?.copy_from_slice(self.take(bytes)?);
        Some(u64::from_le_bytes(number))
    }

    /// Bytes behind their length, which has so many bytes itself.
    fn sized(&mut self, length_bytes: usize) -> Option<&'a [u8]> {
        let length = self.number(length_bytes)?;
        self.take(usize::try_from(length).ok()?)
    }

    fn line_bytes(&mut self) -> Option<&'a [u8]> {
        // Without a line feed there are not enough bytes for one.
        let end = self.rest.iter().position(|&byte| byte == b'\n').unwrap_or(self.rest.len());
        Some(&self.take(end + 1)?[..end])
    }

    fn line(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.line_bytes()?).ok()
    }

    /// The lowest position of the stack that may be popped.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn top(&self) -> Option<Id> {
        self.stack[self.floor()..].last().copied()
    }

    fn pop(&mut self) -> Option<Id> {
        self.top()?;
        self.stack.pop()
    }

    fn pop_mark(&mut self) -> Option<Vec<Id>> {
        Some(self.stack.split_off(self.marks.pop()?))
    }

    fn push_id(&mut self, id: Id) -> Option<()> {
        self.pushes += 1;
        self.stack.push(id);
        self.lost |= self.pushes > MAX_PUSHES;
        (!self.lost).then_some(())
    }

    fn push(&mut self, value: Value) -> Option<()> {
        self.values.push(value);
        self.push_id(self.values.len() - 1)
    }

    fn push_number(&mut self, bytes: usize) -> Option<()> {
        let number = self.number(bytes)?;
        self.push(Value::Number(i64::try_from(number).ok()?))
    }

    /// A signed number of any length; what does not fit 64 bits is no size of anything here.
    fn push_long(&mut self) -> Option<()> {
        let bytes = self.sized(1)?;
        if bytes.len() > 8 {
            return self.push(Value::Unknown);
        }
        let sign = if bytes.last().is_some_and(|byte| byte & 0x80 != 0) { 0xff } else { 0 };
        let mut number = [sign; 8];
        number[..bytes.len()].copy_from_slice(bytes);
        self.push(Value::Number(i64::from_le_bytes(number)))
    }

    fn push_opaque(&mut self, length: usize) -> Option<()> {
        self.take(length)?;
        self.push(Value::Unknown)
    }

    fn push_bytes(&mut self, length_bytes: usize) -> Option<()> {
        self.sized(length_bytes)?;
        self.push(Value::Unknown)
    }

    fn push_text(&mut self, length_bytes: usize) -> Option<()> {
        // Python lets lone surrogates through; a name with one is not a name that can be shown.
        let text = std::str::from_utf8(self.sized(length_bytes)?).ok();
        self.push(text.map_or(Value::Unknown, |text| Value::Text(text.to_owned())))
    }

    fn push_tuple(&mut self, length: usize) -> Option<()> {
        let start = self.stack.len().checked_sub(length).filter(|start| *start >= self.floor())?;
        let items = self.stack.split_off(start);
        self.push(Value::List(items))
    }

    fn push_line(&mut self) -> Option<()> {
        self.line_bytes()?;
        self.push(Value::Unknown)
    }

    /// A line of text, between quotes if there are any. One with escapes is only known to exist.
    fn push_line_text(&mut self, quotes: &str) -> Option<()> {
        let text = std::str::from_utf8(self.line_bytes()?).ok().filter(|text| !text.contains('\\'));
        let bare = |text: &str| match quotes.chars().find(|&quote| text.starts_with(quote)) {
            Some(quote) => text.strip_prefix(quote)?.trim_end().strip_suffix(quote).map(str::to_owned),
            None => quotes.is_empty().then(|| text.to_owned()),
        };
        let text = text.and_then(bare);
        self.push(text.map_or(Value::Unknown, Value::Text))
    }

    /// A line with a number of the memo. Python takes more spellings of one.
    fn key_line(&mut self) -> Option<u32> {
        let line = self.line_bytes()?;
        let key = std::str::from_utf8(line).ok().and_then(|line| line.parse().ok());
        self.lost |= key.is_none();
        key
    }

    /// Two lines: module and name.
    fn global_lines(&mut self) -> Option<Value> {
        let lines = self.line().and_then(|module| Some((module, self.line()?)));
        // Without a line feed at the end of the data Python makes something of it.
        self.lost |= lines.is_none();
        let (module, name) = lines?;
        Some(self.global(Some((module, name))))
    }

    fn push_global(&mut self) -> Option<()> {
        let (name, module) = (self.pop()?, self.pop()?);
        let named = match (&self.values[module], &self.values[name]) {
            (Value::Text(module), Value::Text(name)) => Some((module.clone(), name.clone())),
            _ => None,
        };
        let named = named.as_ref().map(|(module, name)| (module.as_str(), name.as_str()));
        let value = self.global(named);
        self.push(value)
    }

    /// Which one an extension code stands for is decided where the pickle is loaded.
    fn push_extension(&mut self, bytes: usize) -> Option<()> {
        let code = self.number(bytes)?;
        self.note(format!("extension code {code}"));
        self.push(Value::Unknown)
    }

    /// A function or class by module and name, or one whose name is not known.
    fn global(&mut self, named: Option<(&str, &str)>) -> Value {
        let Some((module, name)) = named else {
            self.note("a name that is computed".to_owned());
            return Value::Unknown;
        };
        let text = format!("{module} {name}");
        if text.len() > MAX_GLOBAL {
            self.note(text.chars().take(MAX_GLOBAL).chain(['…']).collect());
            return Value::Unknown;
        }
        self.note(text.clone());
        Value::Global(text)
    }

    /// Keeps what is named, at its first position.
    fn note(&mut self, name: String) {
        if self.noted.len() >= MAX_GLOBALS {
            self.lost = true;
        } else if self.noted.insert(name.clone()) {
            self.globals.push(Global { name, at: self.at });
        }
    }

    /// An object whose class and arguments are `parts` values.
    fn push_object(&mut self, parts: usize) -> Option<()> {
        for _ in 0..parts {
            self.pop()?;
        }
        self.push(Value::Unknown)
    }

    fn append(&mut self, items: &[Id]) -> Option<()> {
        let list = self.top()?;
        if let Value::List(list) = &mut self.values[list] {
            list.extend(items);
        }
        Some(())
    }

    fn set(&mut self, items: &[Id]) -> Option<()> {
        let (map, items) = (self.top()?, pairs(items)?);
        if let Value::Map(map) = &mut self.values[map] {
            map.extend(items);
        }
        Some(())
    }

    fn memorise(&mut self, bytes: usize) -> Option<()> {
        let key = u32::try_from(self.number(bytes)?).ok()?;
        self.memo.insert(key, self.top()?);
        Some(())
    }

    fn recall(&mut self, bytes: usize) -> Option<()> {
        let key = u32::try_from(self.number(bytes)?).ok()?;
        self.push_id(*self.memo.get(&key)?)
    }

    fn reduce(&mut self) -> Option<()> {
        let (arguments, function) = (self.pop()?, self.pop()?);
        let (Value::Global(function), Value::List(arguments)) =
            (&self.values[function], &self.values[arguments])
        else {
            return self.push(Value::Unknown);
        };
        match (function.as_str(), arguments.as_slice()) {
            ("collections OrderedDict", []) => self.push(Value::Map(Vec::new())),
            ("torch._utils _rebuild_tensor_v2", arguments) => {
                self.push(self.tensor(arguments).unwrap_or(Value::Unknown))
            }
            ("torch._utils _rebuild_parameter", &[tensor, ..]) => self.push_id(tensor),
            _ => self.push(Value::Unknown),
        }
    }

    /// The storage that a tuple `('storage', class, key, device, count)` stands for.
    fn storage(&self, reference: Id) -> Option<Value> {
        let Value::List(parts) = &self.values[reference] else { return None };
        let &[kind, class, key, _device, count] = parts.as_slice() else { return None };
        let is_storage = matches!(&self.values[kind], Value::Text(kind) if kind == "storage");
        is_storage.then_some(Value::Storage { class, key, count: size(&self.values, count)? })
    }

    /// The tensor that the arguments storage, offset, shape, strides, … make.
    fn tensor(&self, arguments: &[Id]) -> Option<Value> {
        let &[storage, offset, shape, strides, _gradient, _hooks, ..] = arguments else { return None };
        Some(Value::Tensor { storage, offset: size(&self.values, offset)?, shape, strides })
    }
}

fn pairs(items: &[Id]) -> Option<Vec<(Id, Id)>> {
    let (pairs, rest) = items.as_chunks();
    rest.is_empty().then(|| pairs.iter().map(|&[key, value]| (key, value)).collect())
}
