use super::super::zip::tests::{archive, deflated, stored};
use super::*;

const EVIL: &[u8] = b"cos\nsystem\n(S'id'\ntR.";

fn look(bytes: &[u8], name: &str) -> Scanned {
    scan(&mut Cursor::new(bytes), bytes.len() as u64, name).unwrap()
}

/// Members and what is said of each.
fn found(bytes: &[u8], name: &str) -> Vec<String> {
    let line = |finding: &Finding| {
        let (member, global) = (finding.member.clone().unwrap_or_default(), finding.global.clone());
        format!("{member}:{}", global.unwrap_or_else(|| finding.what.clone()))
    };
    look(bytes, name).findings.iter().map(line).collect()
}

#[test]
fn pickles_are_found_wherever_they_hide() {
    assert_eq!(found(EVIL, "m.pkl"), [":os system"]);
    assert_eq!(found(EVIL, "notes.txt"), [""; 0], "nobody loads a text as a pickle");
    assert_eq!(found(b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "anything"), [":os system"]);
    let inner = archive(&[stored("a/data.pkl", EVIL)]);
    assert_eq!(found(&inner, "m.pt"), ["a/data.pkl:os system"]);
    assert_eq!(found(&archive(&[deflated("a/data.pkl", EVIL)]), "m.pt"), ["a/data.pkl:os system"]);
    let nested = archive(&[stored("x/inner.zip", &inner), deflated("y.bin", &inner)]);
    assert_eq!(found(&nested, "m.zip"), ["x/inner.zip!a/data.pkl:os system", "y.bin!a/data.pkl:os system"]);
    let deep = (0..4).fold(inner, |inner, _| archive(&[stored("i.zip", &inner)]));
    assert!(found(&deep, "m.zip")[0].ends_with("deeper than is looked into"));
    // The pickles that follow the first one.
    assert_eq!(found(&[b"N.", EVIL].concat(), "m.pkl"), [":os system"]);
    assert_eq!(found(&[TORCH_LEGACY, b"\x80\x02M\xe9\x03.", EVIL].concat(), "m.bin"), [":os system"]);
}

#[test]
fn a_program_of_torchscript_is_one_finding_and_what_python_has_in_it_another() {
    let classes = b"\x80\x02c__torch__.a.b\nNet\nctorch.jit._pickle\nbuild_intlist\n0.";
    let script = |data: &[u8]| {
        archive(&[
            stored("a/data.pkl", data),
            stored("a/constants.pkl", b"\x80\x02)."),
            stored("a/code/__torch__/a/b.py", b""),
        ])
    };
    assert_eq!(
        found(&script(classes), "m.pt"),
        [":a TorchScript program, whose code runs when the model is used"]
    );
    assert_eq!(found(&script(&[b"\x80\x02", EVIL].concat()), "m.pt")[1..], ["a/data.pkl:os system"]);
    let plain = archive(&[stored("a/data.pkl", classes)]);
    assert_eq!(
        found(&plain, "m.pt"),
        ["a/data.pkl:__torch__.a.b Net", "a/data.pkl:torch.jit._pickle build_intlist"]
    );
    let nested = archive(&[stored("x.zip", &script(classes)), stored("y.pkl", classes)]);
    assert_eq!(found(&nested, "m.zip").len(), 3, "what lies beside it is not part of it");
}

#[test]
fn bytes_that_are_no_pickle_are_left_alone() {
    let legacy = [TORCH_LEGACY, b"\x80\x02M\xe9\x03.", b"N.", b"N.", b"N.", b"cos\nsystem\n"].concat();
    assert_eq!(found(&legacy, "m.bin"), [""; 0], "the bytes of tensors follow the fifth pickle");
    for start in 0..=u8::MAX {
        if !matches!(start, b'c' | b'i' | 0x82 | 0x83) {
            assert_eq!(found(&[start, 0xff, 0xff, 0xfe], "m.bin"), [""; 0], "{start:#x}");
        }
    }
    // Looks like the start of a safetensors file, and is a pickle all the same.
    let both = [b"G\0\0\0\0\0\0\0{", EVIL, &[b'N'; 99]].concat();
    assert_eq!(found(&both, "m.pkl"), [":os system"]);
    let storage = archive(&[stored("a/data.pkl", b"N."), stored("a/data/0", EVIL)]);
    let called_so = archive(&[stored("a/data.pkl", b"N."), stored("a/data/0.pkl", EVIL)]);
    assert_eq!(found(&called_so, "m.pt"), ["a/data/0.pkl:os system"]);
    assert_eq!(look(&storage, "m.pt"), Scanned { format: Some("torch"), findings: Vec::new() });
}

#[test]
fn what_cannot_be_looked_into_is_a_finding() {
    for (bytes, said) in [
        (&b"\x1f\x8b\x08rest"[..], "gzip"),
        (b"x\x9crest", "zlib"),
        (b"Np 1\n.", "could not be followed"),
        (b"PK\x03\x04broken", "cannot be read"),
    ] {
        let found = found(bytes, "m.joblib");
        assert!(found.len() == 1 && found[0].contains(said), "{found:?}");
    }
    let tar = [&[0; TAR_MARK][..], b"ustar", &[0; 250]].concat();
    assert!(found(&tar, "m.pt")[0].contains("tar"));
}

#[test]
fn arrays_of_objects_are_pickles() {
    let array = |descr: &str, rest: &[u8]| {
        let text = format!("{{'descr': {descr}, 'fortran_order': False, 'shape': (1,), }}\n");
        [npy::MAGIC, &[1, 0], &(text.len() as u16).to_le_bytes(), text.as_bytes(), rest].concat()
    };
    assert_eq!(found(&array("'|O'", EVIL), "a.npy"), [":os system"]);
    assert_eq!(found(&array("[('a', '|O')]", EVIL), "a.npy"), [":os system"]);
    assert_eq!(look(&array("'<f8'", EVIL), "a.npy"), Scanned::default(), "numbers are no code");
    let object = array("'|O'", EVIL);
    let position = look(&object, "a.npy").findings[0].position;
    assert_eq!(position, Some((object.len() - EVIL.len()) as u64));
    assert_eq!(look(&archive(&[stored("a.npy", &object)]), "a.npz").findings[0].position, position);
    assert_eq!(look(&archive(&[stored("a.npy", &array("'<f8'", EVIL))]), "a.npz"), Scanned::default());
    let packed = archive(&[deflated("a.npy", &array("'|O'", EVIL)), stored("b.npy", &array("'<f8'", EVIL))]);
    assert_eq!(found(&packed, "a.npz"), ["a.npy:os system"]);
}

#[test]
fn lambda_layers_are_code() {
    let config = br#"{"config": {"layers": [{"class_name": "L\u0061mbda"}]}}"#;
    let keras = archive(&[stored("config.json", config), stored("model.weights.h5", HDF5)]);
    assert!(found(&keras, "m.keras")[0].contains("Lambda"));
    let h5 = [HDF5, &[0; (1 << 20) - 20], br#"{"class_name": "Lambda"}"#].concat();
    assert!(found(&h5, "m.h5")[0].contains("Lambda"));
    assert_eq!(found(HDF5, "m.h5"), [""; 0]);
}

#[test]
fn what_is_too_large_is_a_finding_only_where_it_matters() {
    let size = MAX_PICKLE as usize + 1;
    let mut numbers = vec![0; size];
    assert_eq!(found(&numbers, "m.bin"), [""; 0], "Python stops at the first byte");
    numbers[..5].copy_from_slice(b"B\xff\xff\xff\x7f");
    assert!(found(&numbers, "m.bin")[0].contains("could not be followed"));
}

#[test]
fn unpacking_is_bounded() {
    let zeros = vec![0; 4 << 20];
    let bomb: Vec<_> = (0..4)
        .map(|number| (format!("{number}.pkl"), [b"\x80\x04B\0\0\x40\0", &zeros[..], b"."].concat()))
        .collect();
    let members: Vec<_> = bomb.iter().map(|(name, bytes)| deflated(name, bytes)).collect();
    assert_eq!(found(&archive(&members), "m.zip"), [""; 0]);
}
