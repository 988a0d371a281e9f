use super::*;

fn show(bytes: &[u8], path: &str) -> String {
    let flat = flatten(bytes, path).unwrap();
    let pairs = flat.iter().map(|(key, value)| match value {
        Value::Number(value) => format!("{key}={}", number(*value)),
        Value::Text(text) => format!("{key}='{text}'"),
        Value::Bool(value) => format!("{key}={value}"),
        Value::Null => format!("{key}=null"),
    });
    pairs.collect::<Vec<_>>().join(" ")
}

fn refused(bytes: &[u8], path: &str) -> String {
    flatten(bytes, path).unwrap_err().one_line()
}

#[test]
fn all_formats_become_the_same_keys() {
    let flat = "a=1 b.c='x' b.d.0=true b.d.1=null e=2.5";
    let json = r#"{"e": 2.5, "a": 1.0, "b": {"c": "x", "d": [true, null]}, "empty": {}, "none": []}"#;
    assert_eq!(show(json.as_bytes(), "a.json"), flat);
    assert_eq!(show(format!("\u{feff}{json}").as_bytes(), "dir.x/A.JSON"), flat);
    assert_eq!(show(b"a: 1\nb:\n  c: x\n  d: [true, ~]\ne: 2.5\nempty: {}\n", "a.yml"), flat);
    assert_eq!(show(b"a,b.c,b.d.0,b.d.1,e,\n9,y,False,1,1,0\n1, x ,True,,2.5,1\n", "a.csv"), flat);
    assert_eq!(show(b"[a]\nb = 1\nday = 2024-05-01\n", "a.toml"), "a.b=1 a.day='2024-05-01'");
    assert_eq!(show(b"1: a\ntrue: b\n0.5: c\n", "a.yaml"), "0.5='c' 1='a' true='b'");
    assert_eq!(show(br#"[{"": 1}, 18446744073709551616]"#, "a.json"), "0.=1 1=1.8446744073709552e19");
    assert_eq!(show(b"a: 340282366920938463463374607431768211455\n", "a.yaml"), "a=3.402823669209385e38");
    assert_eq!(show(b"a: 1e999\n", "a.yaml"), "a='1e999'", "text, as YAML has no such number");
}

#[test]
fn metrics_are_the_numbers() {
    let report = metrics(br#"{"auc": 0.9, "name": "x", "ok": true, "n": 3}"#, "eval.json").unwrap();
    assert_eq!(report, BTreeMap::from([("auc".to_owned(), 0.9), ("n".to_owned(), 3.0)]));
}

#[test]
fn numbers_that_are_not_finite_are_named() {
    let cases: [(&str, &str, &str); 12] = [
        (
            "{\n \"f1\": 1,\n \"auc\": NaN\n}",
            "eval.json",
            "eval.json:3: `auc` is NaN, which cannot be compared",
        ),
        ("{\"auc\":NaN}", "eval.json", "eval.json:1: `auc` is NaN,"),
        ("{\"a\": {\"b\": [1, Infinity]}}", "eval.json", "eval.json:1: `a.b.1` is Infinity,"),
        ("{\"a\": {\"b\": [1,\n-Infinity]}}", "eval.json", "eval.json:2: `a.b.1` is -Infinity,"),
        ("[-Infinity]", "eval.json", "eval.json:1: `0` is -Infinity,"),
        ("{\"a\": 1e999}", "eval.json", "eval.json:1: number out of range"),
        ("f1: 1\nauc: .nan\n", "eval.yaml", "eval.yaml:2:6: auc: `auc` is NaN,"),
        ("a:\n  - -.inf\n", "eval.yaml", "`a.0` is -Infinity,"),
        ("f1 = 1\nauc = nan\n", "eval.toml", "eval.toml:2: `auc` is NaN,"),
        ("a.b = [-inf]\n", "eval.toml", "eval.toml:1: `a.b.0` is -Infinity,"),
        ("step,auc\n1,nan\n2,0.5\n3,NaN\n", "eval.csv", "eval.csv:4: `auc` is NaN,"),
        ("auc\ninf\n", "eval.csv", "eval.csv:2: `auc` is inf,"),
    ];
    for (text, path, reason) in cases {
        let error = refused(text.as_bytes(), path);
        assert!(error.contains(reason), "{text}\n{error}");
    }
    assert_eq!(show(b"auc\nnan\n0.5\n", "eval.csv"), "auc=0.5", "only the last row counts");
}

#[test]
fn refuses_what_has_no_one_meaning() {
    let cases: [(&[u8], &str, &str); 22] = [
        (b"a", "x.txt", "x.txt: values are not read"),
        (b"a", "json", "values are not read"),
        (b"a", "a.json/b", "values are not read"),
        (b"\xff", "x.json", "x.json: not UTF-8"),
        (b"\xff", "x.csv", "x.csv: not UTF-8"),
        (b"1", "x.json", "x.json: has no keys"),
        (b"", "x.yaml", "x.yaml: has no keys"),
        (b"{\n\"a\": 1, \"a\": 2}", "x.json", "x.json:2: duplicate key `a`"),
        (b"{} {}", "x.json", "trailing characters"),
        (b"{", "x.json", "x.json:1: not JSON: EOF"),
        (b"a: 1\na: 2\n", "x.yaml", "duplicate key `a`"),
        (b"a: {1: x, '1': y}\n", "x.yaml", "duplicate key `1`"),
        (b"a: &x [1]\nb: *x\n", "x.yaml", "x.yaml:1: YAML anchors"),
        (b"~: 1\n", "x.yaml", "invalid type"),
        (b"a = 1\na = 2\n", "x.toml", "x.toml:2: duplicate key"),
        (b"a = 1\nb c\n", "x.toml", "x.toml:2: "),
        (br#"{"a.b": 1, "a": {"b": 2}}"#, "x.json", "two values have the key `a.b`"),
        (b"a,a\n1,2\n", "x.csv", "x.csv:2: two values have the key `a`"),
        (b"a,b\n", "x.csv", "no row below"),
        (b"", "x.csv", "no row below"),
        (b"a,b\n1,2\n1\n", "x.csv", "x.csv:3: 1 cell where the header has 2"),
        (b"{\"a\x1b\": 1, \"a\x1b\": 2}", "x\n.json", "x\\n.json:1: "),
    ];
    for (bytes, path, reason) in cases {
        let error = refused(bytes, path);
        assert!(error.contains(reason), "{}\n{error}", String::from_utf8_lossy(bytes));
        assert!(!error.contains(char::is_control), "{error}");
    }
    assert_eq!(flatten(b"", "x.ini").unwrap_err().hints().len(), 1);
}

#[test]
fn limits_hold() {
    let nested = |open: &str, depth: usize, close: &str| open.repeat(depth) + "1" + &close.repeat(depth);
    assert!(flatten(nested("[", 64, "]").as_bytes(), "x.json").is_ok());
    let long = "k".repeat(MAX_KEY + 1);
    let half = "k".repeat(300);
    let list = |count: usize| format!("[{}1]", "1,".repeat(count - 1));
    assert!(flatten(list(MAX_KEYS).as_bytes(), "x.json").is_ok());
    let megabytes = MAX_BYTES as usize;
    let cases = [
        (nested("[", 65, "]"), "x.json", "nested deeper than 64"),
        (nested("[", 100, "]"), "x.yaml", "nested deeper than 64"),
        (nested("{a: ", 100, "}"), "x.yaml", "nested deeper than 64"),
        (nested("- ", 100, ""), "x.yaml", "nested deeper than 64"),
        (format!("a = {}", nested("[", 70, "]")), "x.toml", "nested deeper than 64"),
        (format!("a = {}", nested("[", 100, "]")), "x.toml", "recursion depth"),
        (format!("{}a = 1", "a.".repeat(100_000)), "x.toml", "recursion limit"),
        ("[".repeat(megabytes), "x.json", "nested deeper than 64"),
        ("[".repeat(megabytes), "x.yaml", "too many values"),
        ("- ".repeat(megabytes / 2), "x.yaml", "too many values"),
        ("? ".repeat(megabytes / 2), "x.yaml", "too many values"),
        ("[".repeat(megabytes), "x.toml", "too many values"),
        ("\n".repeat(megabytes), "x.toml", "too many values"),
        (format!("[{}1]", "[],".repeat(megabytes / 3 - 1)), "x.json", "too many values"),
        (",".repeat(MAX_KEYS) + "\n" + &",".repeat(1_000_000), "x.csv", "cells where the header"),
        ("[".repeat(megabytes + 1), "x.json", "larger than 16.0 MiB"),
        ("a\n".repeat(megabytes / 2 + 1), "x.csv", "larger than 16.0 MiB"),
        (list(MAX_KEYS + 1), "x.json", "more than 10000 values"),
        (format!("{{\"{long}\": 1}}"), "x.json", "longer than 512"),
        (format!("{{\"{half}\": {{\"{half}\": 1}}}}"), "x.json", "longer than 512"),
        (format!("{long}\n1\n"), "x.csv", "longer than 512"),
    ];
    for (text, path, reason) in cases {
        let error = refused(text.as_bytes(), path);
        assert!(error.contains(reason), "{path} {text:.20}: {error}");
    }
    // Every list doubles the one before: nothing of it is ever expanded.
    let bomb: String = (1..40).map(|n| format!("a{n}: &a{n} [*a{0}, *a{0}]\n", n - 1)).collect();
    assert!(refused(format!("a0: &a0 x\n{bomb}").as_bytes(), "x.yaml").contains("not allowed"));
}

#[test]
fn number_text_is_short_and_reads_back() {
    let cases = [
        (0.0, "0"),
        (-0.0, "-0"),
        (12.0, "12"),
        (0.1, "0.1"),
        (-2.5, "-2.5"),
        (1e-4, "0.0001"),
        (9.9e-5, "9.9e-5"),
        (999_999_999_999_999.0, "999999999999999"),
        (1e15, "1e15"),
        (1.0 / 3.0, "0.3333333333333333"),
        (f64::MAX, "1.7976931348623157e308"),
        (5e-324, "5e-324"),
    ];
    for (value, text) in cases {
        assert_eq!(number(value), text);
        assert_eq!(text.parse::<f64>().unwrap().to_bits(), value.to_bits());
    }
}
