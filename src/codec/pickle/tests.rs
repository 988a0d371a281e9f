use super::machine::MAX_PUSHES;
use super::*;

fn text(text: &str) -> Vec<u8> {
    [&[0x8c, text.len() as u8], text.as_bytes()].concat()
}

fn number(number: u64) -> Vec<u8> {
    [&[0x8a, 8][..], &number.to_le_bytes()].concat()
}

fn sizes(sizes: &[u64]) -> Vec<u8> {
    let numbers: Vec<u8> = sizes.iter().flat_map(|&size| number(size)).collect();
    [b"(", &numbers[..], b"t"].concat()
}

/// A call of `torch._utils._rebuild_tensor_v2`.
pub(crate) fn tensor(
    class: &str,
    key: &str,
    count: u64,
    offset: u64,
    shape: &[u64],
    strides: &[u64],
) -> Vec<u8> {
    let class = format!("ctorch\n{class}\n");
    [
        b"ctorch._utils\n_rebuild_tensor_v2\n((",
        &text("storage")[..],
        class.as_bytes(),
        &text(key),
        &text("cpu"),
        &number(count),
        b"tQ",
        &number(offset),
        &sizes(shape),
        &sizes(strides),
        b"\x89ccollections\nOrderedDict\n)RtR",
    ]
    .concat()
}

/// A pickle of a dictionary.
pub(crate) fn dictionary(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
    [b"\x80\x02", &map(entries)[..], b"."].concat()
}

/// A dictionary inside a pickle.
pub(crate) fn map(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let entries: Vec<u8> =
        entries.iter().flat_map(|(key, value)| [text(key), value.clone()].concat()).collect();
    [b"ccollections\nOrderedDict\n)R(", &entries[..], b"u"].concat()
}

fn float(key: &str) -> Vec<u8> {
    tensor("FloatStorage", key, 6, 0, &[2, 3], &[3, 1])
}

fn names(pickle: &[u8]) -> Option<Vec<String>> {
    Some(tensors(pickle)?.into_iter().map(|tensor| tensor.name).collect())
}

#[test]
fn finds_tensors_in_containers() {
    let list = [b"](", &float("1")[..], &float("2"), b"e"].concat();
    let parameter = [b"ctorch._utils\n_rebuild_parameter\n(", &float("3")[..], b"\x88NtR"].concat();
    let by_number = [b"}K\x07", &float("4")[..], b"s"].concat();
    let pickle = dictionary(&[
        ("model", map(&[("w", float("0")), ("p", parameter)])),
        ("list", list),
        ("state", by_number),
        ("epoch", number(3)),
        ("date", b"cdatetime\ndatetime\nC\x01xR".to_vec()),
    ]);
    assert_eq!(names(&pickle).unwrap(), ["model.w", "model.p", "list.0", "list.1", "state.7"]);
    let expected = Described {
        name: "model.w".to_owned(),
        class: "FloatStorage".to_owned(),
        storage: "0".to_owned(),
        count: 6,
        offset: 0,
        shape: vec![2, 3],
        strides: vec![3, 1],
    };
    assert_eq!(tensors(&pickle).unwrap()[0], expected);
}

#[test]
fn only_the_known_pattern_is_a_tensor() {
    let good = float("0");
    let replaced = |from: &[u8], to: &[u8]| {
        let at = good.windows(from.len()).position(|window| window == from).unwrap();
        [&good[..at], to, &good[at + from.len()..]].concat()
    };
    let unlike = [
        replaced(b"_rebuild_tensor_v2", b"_rebuild_tensor_v9"),
        replaced(b"torch._utils", b"os"),
        replaced(b"storage", b"garbage"),
        replaced(b"ctorch\nF", b"cevil\nF"),
        replaced(&sizes(&[3, 1]), &sizes(&[1])),
        replaced(&sizes(&[3, 1]), b"N"),
        replaced(&number(6), &number(u64::MAX)),
    ];
    for value in unlike {
        assert!(names(&dictionary(&[("w", value)])).unwrap().is_empty());
    }
    let command = b"\x80\x02cposix\nsystem\nX\x02\0\0\0ls\x85R.";
    assert!(names(command).unwrap().is_empty(), "a call is only a value that is not known");
}

#[test]
fn damage_is_none_and_never_panics() {
    let pickle = dictionary(&[("w", float("0")), ("l", [b"](", &float("1")[..], b"e"].concat())]);
    for length in 0..pickle.len() {
        assert_eq!(names(&pickle[..length]), None, "{length}");
    }
    for opcode in 0..=u8::MAX {
        for before in [&b""[..], b"N", b"NN", b"NNN", b"(", b"N(", b"}(N"] {
            drop(names(&[before, &[opcode]].concat()));
            drop(names(&[before, &[opcode], &[0; 20], b"."].concat()));
            drop(names(&[before, &[opcode], &[0xff; 20], b"."].concat()));
        }
    }
    for bad in
        [&b"\xff."[..], b"NN(\x86.", b"N(\x85N.", b"h\x05.", b"(0.", b"N(\x85.", b"(NNNu.", b"}(Nu.", b"."]
    {
        assert_eq!(names(bad), None, "{bad:?}");
    }
}

#[test]
fn repetition_and_cycles_end() {
    // A list of two references to the list before, many times over, describes 2^60 tensors.
    let doubled = |value: &[u8]| [b"(", value, b"q\x00h\x00l"].concat();
    let bomb = (0..20).fold(float("0"), |value, _| doubled(&value));
    assert_eq!(names(&[&bomb[..], b"."].concat()), None);
    let cycle = b"]q\x00h\x00a.";
    assert_eq!(names(cycle).unwrap().len(), 0);
    let wide_cycle = b"]q\x00(h\x00h\x00e.";
    assert_eq!(names(wide_cycle), None);
    let deep = [&[b']'; 1000][..], &[b'a'; 999], b"."].concat();
    assert_eq!(names(&deep).unwrap().len(), 0);
    let pushes = [&vec![b'N'; MAX_PUSHES + 1][..], b"."].concat();
    assert_eq!(names(&pushes), None);
    assert!(names(&pushes[1..]).is_some());
}

fn named(pickle: &[u8]) -> Vec<String> {
    super::names(pickle).globals.into_iter().map(|global| global.name).collect()
}

#[test]
fn every_way_to_name_a_function_is_seen() {
    let memo = b"\x80\x04\x8c\x06system\x94\x8c\x02os\x94h\x010h\x01h\x00\x93\x8c\x02id\x85R.";
    for (pickle, expected) in [
        (&b"cos\nsystem\n(S'id'\ntR."[..], "os system"),
        (b"(S'id'\nios\nsystem\n.", "os system"),
        (b"(cos\nsystem\nS'id'\no.", "os system"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "os system"),
        (b"\x80\x04U\x02osT\x06\0\0\0system\x93.", "os system"),
        (b"Vos\nS'system'\n\x93.", "os system"),
        (b"Vos\np7\n0Vsystem\ng7\n2\x93.", "os os"),
        (b"\x80\x02cbuiltins\neval\nX\x01\0\0\x001\x85R.", "builtins eval"),
        (memo, "os system"),
        (b"\x80\x02\x82\x05.", "extension code 5"),
        (b"\x80\x02\x84\x05\0\x01\0.", "extension code 65541"),
        (b"\x80\x04Vo\\u0073\nVsystem\n\x93.", "a name that is computed"),
        (b"\x80\x04NN\x93.", "a name that is computed"),
        // A mark that is popped, and an end that never comes.
        (b"(0cos\nsystem\n", "os system"),
        (b"cos\nsystem\n)R\xff", "os system"),
    ] {
        assert_eq!(named(pickle), [expected], "{}", pickle.escape_ascii());
    }
    let long = [b"cos\n", &[b'x'; 300][..], b"\n."].concat();
    assert!(named(&long)[0].ends_with('…'));
}

#[test]
fn what_cannot_be_followed_is_told_from_what_python_refuses() {
    for refused in [&b"\xff."[..], b"", b"N", b"s.", b"h\x01.", b"(NNNd.", b"1."] {
        let named = super::names(refused);
        assert!(named.end.is_none() && !named.lost, "{}", refused.escape_ascii());
    }
    let pushes = [&vec![b'N'; MAX_PUSHES + 1][..], b"."].concat();
    for lost in [&pushes[..], b"Np 1\n.", b"cos\nsystem", b"c\xff\nx\n."] {
        let named = super::names(lost);
        assert!(named.end.is_none() && named.lost);
    }
    assert_eq!(super::names(b"N.rest").end, Some(2));
}
