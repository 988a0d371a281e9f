use serde_json::{Value, json};

use super::*;

fn bytes(schema: &Value) -> Vec<u8> {
    schema.to_string().into_bytes()
}

fn listed(schema: &Value) -> String {
    let fields = fields(&bytes(schema), "s.json").unwrap().expect("a schema");
    let line = |(path, field): (&String, &Field)| {
        format!("{path}{} {}", if field.required { "!" } else { "" }, field.kind)
    };
    fields.iter().map(line).collect::<Vec<_>>().join("; ")
}

fn broken(old: &Value, new: &Value) -> String {
    incompatibilities(&bytes(old), &bytes(new), "s.json").unwrap().join("; ")
}

/// Compares two schemas of one field, as input and as output.
fn broken_field(old: &Value, new: &Value) -> (String, String) {
    let schema = |name: &str, part: &Value| {
        let empty = json!({"type": "object"});
        let (input, output) = if name == "input" { (part, &empty) } else { (&empty, part) };
        json!({"type": "object", "properties": {"input": input, "output": output}})
    };
    let side = |name: &str| broken(&schema(name, old), &schema(name, new)).replace(&format!("{name}: "), "");
    (side("input"), side("output"))
}

#[test]
fn a_schema_is_told_from_other_json() {
    for text in ["{}", "[]", "1", "true", r#"{"title": "x"}"#] {
        assert_eq!(fields(text.as_bytes(), "s.json").unwrap(), None, "{text}");
        let error = incompatibilities(text.as_bytes(), b"{\"type\": 1}", "s.json").unwrap_err().one_line();
        assert_eq!(error, "s.json: not a JSON Schema");
    }
    for text in [r#"{"$schema": "x"}"#, r#"{"$defs": {}}"#] {
        assert_eq!(fields(text.as_bytes(), "s.json").unwrap(), Some(BTreeMap::new()), "{text}");
    }
    assert!(
        fields(b"{\"type\": 1, \"type\": 1}", "s.json").unwrap_err().one_line().contains("duplicate key")
    );
    assert!(fields(b"{", "s.json").is_err());
}

#[test]
fn fields_have_kinds() {
    let cases = [
        (json!({"type": "array", "items": {"type": "number"}}), ".! array<number>"),
        (json!({"$ref": "https://x/y.json", "type": "string"}), ".! ref(https://x/y.json)"),
        (json!({"type": "object"}), ".! object"),
        (
            json!({"type": "object", "required": ["a", "c"], "properties": {
                "a": {"type": "string", "format": "date"}, "b": {"enum": ["x", 1, null, [1]]}, "c": {"const": "k"},
                "d": {"type": ["integer", "null"]}, "e": true, "f": false, "g": {"properties": {"h.i": {"type": "array"}}}}}),
            "a! string(date); b enum(x|1|null|[…]); c! const(k); d integer|null; e any; f never; g object; g.h.i array",
        ),
        (
            json!({"$defs": {"box": {"type": "object", "properties": {"x": {"type": "number"}}, "required": ["x"]}},
                "properties": {"boxes": {"type": "array", "items": {"$ref": "#/$defs/box"}},
                    "best": {"anyOf": [{"$ref": "#/$defs/box"}, {"type": "null"}]},
                    "main": {"allOf": [{"$ref": "#/$defs/box"}], "description": "d"}, "odd": {"$ref": "#/$defs/none"}}}),
            "best object|null; best.x! number; boxes array<object>; boxes[].x! number; main object; main.x! number; odd any",
        ),
        (
            json!({"$defs": {"n": {"type": "object", "properties": {"next": {"$ref": "#/$defs/n"}, "v": {"type": "integer"}}}},
                "$ref": "#/$defs/n"}),
            "next object; next.next object; next.v integer; v integer",
        ),
    ];
    for (schema, expected) in cases {
        let listed = listed(&schema);
        assert!(listed.starts_with(expected), "{schema}\n{listed}");
    }
}

/// Old and new schema, then the breaks from old to new as input, as output, and from new to old as input, as output.
const CHANGED_VALUES: &str = r#"
{"type": "string"} ~ {"type": "string", "title": "b", "x-y": 1, "default": "c"} ~ ~ ~ ~
{"type": "string"} ~ {"type": "number"} ~ `type` narrowed from string to number ~ `type` widened from string to number ~ `type` narrowed from number to string ~ `type` widened from number to string
{"type": "integer"} ~ {"type": "number"} ~ ~ `type` widened from integer to number ~ `type` narrowed from number to integer ~
{"type": "string"} ~ {"type": ["string", "null"]} ~ ~ `type` widened from string to null|string ~ `type` narrowed from null|string to string ~
{"type": "string"} ~ {} ~ ~ `type` widened from string to any ~ `type` narrowed from any to string ~
{"type": "string"} ~ false ~ `type` narrowed from string to never ~ ~ ~ `type` widened from never to string
{"enum": ["a"]} ~ {"enum": ["b", "a"]} ~ ~ can be there now: `b` ~ no longer valid: `b` ~
{"enum": [1]} ~ {"enum": [1.0]} ~ ~ ~ ~
{"const": "a"} ~ {"enum": ["a", "b"]} ~ ~ can be there now: `b` ~ no longer valid: `b` ~
{"const": "a"} ~ {"type": "string"} ~ ~ no longer limited to some values ~ only some values are valid now ~
{"const": "a"} ~ {} ~ ~ no longer limited to some values ~ only some values are valid now ~
{"type": "number"} ~ {"type": "number", "minimum": 1} ~ `minimum` narrowed from none to 1 ~ ~ ~ `minimum` widened from 1 to none
{"minimum": 0} ~ {"exclusiveMinimum": 0} ~ `minimum` narrowed from 0 to 0 (exclusive) ~ ~ ~ `minimum` widened from 0 (exclusive) to 0
{"maximum": 2} ~ {"maximum": 1.5} ~ `maximum` narrowed from 2 to 1.5 ~ ~ ~ `maximum` widened from 1.5 to 2
{"maximum": 2} ~ {"exclusiveMaximum": 3} ~ ~ `maximum` widened from 2 to 3 (exclusive) ~ `maximum` narrowed from 3 (exclusive) to 2 ~
{} ~ {"minLength": 0} ~ ~ ~ ~
{} ~ {"minLength": 1} ~ `minLength` narrowed from 0 to 1 ~ ~ ~ `minLength` widened from 1 to 0
{"maxLength": 9} ~ {"maxLength": 8} ~ `maxLength` narrowed from 9 to 8 ~ ~ ~ `maxLength` widened from 8 to 9
{"minItems": 1} ~ {"minItems": 2} ~ `minItems` narrowed from 1 to 2 ~ ~ ~ `minItems` widened from 2 to 1
{"maxItems": 1} ~ {} ~ ~ `maxItems` widened from 1 to none ~ `maxItems` narrowed from none to 1 ~
{} ~ {"maxProperties": 1} ~ `maxProperties` narrowed from none to 1 ~ ~ ~ `maxProperties` widened from 1 to none
{"type": "string"} ~ {"type": "string", "minItems": 2} ~ ~ ~ ~
{} ~ {"pattern": "^a"} ~ `pattern` narrowed from none to ^a ~ ~ ~ `pattern` widened from ^a to none
{"pattern": "^b"} ~ {"pattern": "^a"} ~ cannot be judged: `pattern` changed ~ cannot be judged: `pattern` changed ~ cannot be judged: `pattern` changed ~ cannot be judged: `pattern` changed
{} ~ {"format": "date"} ~ `format` narrowed from none to date ~ ~ ~ `format` widened from date to none
{"format": "date"} ~ {"format": "time"} ~ `format` narrowed from date to time ~ `format` widened from date to time ~ `format` narrowed from time to date ~ `format` widened from time to date
{"uniqueItems": false} ~ {"uniqueItems": true} ~ `uniqueItems` narrowed from false to true ~ ~ ~ `uniqueItems` widened from true to false
{"uniqueItems": false} ~ {} ~ ~ ~ ~
{"items": {"type": "integer"}} ~ {"items": {"type": "number"}} ~ ~ []: `type` widened from integer to number ~ []: `type` narrowed from number to integer ~
{"type": "array"} ~ {"type": "array", "items": {"type": "number"}} ~ []: `type` narrowed from any to number ~ ~ ~ []: `type` widened from number to any
{"items": [{"type": "integer"}]} ~ {"items": [{"type": "integer", "title": "t"}]} ~ ~ ~ ~
"#;

#[test]
fn values_are_narrowed_and_widened() {
    for line in CHANGED_VALUES.lines().skip(1) {
        let columns: Vec<&str> = line.split('~').map(str::trim).collect();
        let [old, new, forth @ .., back_input, back_output] = &columns[..] else { panic!("{line}") };
        let parse = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        let check = |old: &str, new: &str, expected: &[&str]| {
            let (input, output) = broken_field(&parse(old), &parse(new));
            assert_eq!(
                [input.replace("input", ""), output.replace("output", "")],
                expected,
                "{old} to {new}"
            );
        };
        check(old, new, forth);
        check(new, old, &[back_input, back_output]);
    }
}

#[test]
fn properties_follow_their_side() {
    let object = |properties: Value, required: Value| json!({"type": "object", "properties": properties, "required": required});
    let closed = |mut schema: Value| {
        schema["additionalProperties"] = json!(false);
        schema
    };
    let text = json!({"type": "string"});
    let a = object(json!({"a": text}), json!([]));
    let ab = object(json!({"a": text, "b": text}), json!([]));
    let must_a = object(json!({"a": text}), json!(["a"]));
    let must_b = object(json!({"a": text, "b": text}), json!(["b"]));
    let map = |kind: &str| json!({"type": "object", "additionalProperties": {"type": kind}});
    let cases = [
        (&a, &ab, "", ""),
        (&a, &must_b, "input.b: new required field", ""),
        (&a, &must_a, "input.a: now required", ""),
        (&must_a, &a, "", "output.a: no longer required"),
        (&must_b, &a, "", "output.b: removed"),
        (&ab, &a, "", "output.b: removed"),
        (
            &ab,
            &closed(a.clone()),
            "input.b: removed, and other fields are refused; fields that are not described are refused now",
            "output.b: removed",
        ),
        (
            &closed(ab.clone()),
            &closed(a.clone()),
            "input.b: removed, and other fields are refused",
            "output.b: removed",
        ),
        (&closed(a.clone()), &closed(ab.clone()), "", ""),
        (&closed(a.clone()), &a, "", ""),
        (
            &ab,
            &map("string"),
            "*: `type` narrowed from any to string",
            "output.a: removed; output.b: removed",
        ),
        (&map("integer"), &map("number"), "", "output.*: `type` widened from integer to number"),
        (&map("number"), &map("integer"), "input.*: `type` narrowed from number to integer", ""),
    ];
    for (old, new, input, output) in cases {
        let (found_input, found_output) = broken_field(old, new);
        assert!(
            found_input.ends_with(input) && found_input.is_empty() == input.is_empty(),
            "{old}\n{new}\n{found_input}"
        );
        assert_eq!(found_output, output, "{old}\n{new}");
    }
    // Without both sides, the rules of an input hold.
    assert_eq!(broken(&a, &must_b), "b: new required field");
    assert_eq!(broken(&json!({"properties": {"output": ab}}), &json!({"properties": {"output": a}})), "");
    let doubtful = json!({"properties": {"a": text}, "unevaluatedProperties": false});
    assert!(
        broken(&ab, &doubtful)
            .contains("b: cannot be judged: removed where there is `unevaluatedProperties`")
    );
}

#[test]
fn top_level_properties_have_sides() {
    let schema = |input: &str, output: &str, more: Value, required: Value| {
        let kind = |name: &str| json!({"type": name});
        let mut properties = json!({"request": kind(input), "response": kind(output)});
        properties.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"type": "object", "properties": properties, "required": required})
    };
    let old = schema("integer", "number", json!({}), json!([]));
    assert_eq!(broken(&old, &schema("number", "integer", json!({}), json!(["request"]))), "");
    let expected =
        "request: `type` narrowed from integer to string; response: `type` widened from number to string";
    assert_eq!(broken(&old, &schema("string", "string", json!({}), json!([]))), expected);
    let more =
        schema("integer", "number", json!({"params": {"type": "number"}}), json!(["params", "response"]));
    assert_eq!(broken(&old, &more), "params: now required");
    assert_eq!(broken(&more, &old), "params: removed");
    let renamed = json!({"properties": {"input": {}, "output": {}}});
    assert_eq!(broken(&old, &renamed), "request: removed; response: removed");
}

#[test]
fn references_and_merges_are_followed() {
    let inline = json!({"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]});
    let base =
        json!({"type": "object", "properties": {"a": {"type": "string", "title": "A"}}, "required": ["a"]});
    let referring =
        |part: Value| json!({"$defs": {"x/y": base}, "type": "object", "properties": {"f": part}});
    let plain = json!({"type": "object", "properties": {"f": inline}});
    for part in [
        json!({"$ref": "#/$defs/x~1y"}),
        json!({"$ref": "#/$defs/x~1y", "description": "d"}),
        json!({"allOf": [{"$ref": "#/$defs/x~1y"}], "default": {}}),
        json!({"allOf": [{"$ref": "#/$defs/x~1y"}, {"required": ["a"]}], "type": "object"}),
        json!({"anyOf": [{"$ref": "#/$defs/x~1y"}]}),
    ] {
        assert_eq!(broken(&plain, &referring(part.clone())), "", "{part}");
        assert_eq!(broken(&referring(part.clone()), &plain), "", "{part}");
    }
    let more = referring(json!({"allOf": [{"$ref": "#/$defs/x~1y"}, {"required": ["b"]}]}));
    assert_eq!(broken(&plain, &more), "f.b: new required field");
    let cases = [
        (json!({"$ref": "#/$defs/gone"}), "f: cannot be judged: `#/$defs/gone` does not exist"),
        (json!({"$ref": "https://x/y"}), "f: cannot be judged: `$ref` changed"),
        (
            json!({"allOf": [{"minimum": 1}, {"minimum": 2}]}),
            "f: cannot be judged: `allOf` gives `minimum` twice",
        ),
        (
            json!({"allOf": [base, {"additionalProperties": false}]}),
            "f: cannot be judged: `additionalProperties` in `allOf` or beside `$ref`",
        ),
        (
            json!({"allOf": [{"$ref": "#/properties/f"}]}),
            "f: cannot be judged: references go in circles or too far",
        ),
        (json!(5), "f: cannot be judged: not a schema"),
        (json!({"type": "object", "not": {}}), "f: cannot be judged: `not` changed"),
        (
            json!({"type": "object", "patternProperties": {"^b": {"type": "string"}}}),
            "f: cannot be judged: `patternProperties` changed",
        ),
    ];
    for (part, reason) in cases {
        let old = json!({"type": "object", "properties": {"f": {"type": "object"}}});
        let broken = broken(&old, &referring(part.clone()));
        assert!(broken.contains(reason), "{part}: {broken}");
    }
    let remote = |url: &str| json!({"properties": {"f": {"$ref": url}}});
    assert_eq!(
        broken(&remote("https://x/y"), &json!({"properties": {"f": {"$ref": "https://x/y"}, "g": {}}})),
        ""
    );
    let pattern =
        |kind: &str| json!({"type": "object", "patternProperties": {"title": {"type": kind}}, "title": kind});
    assert!(broken(&pattern("string"), &pattern("number")).contains("`patternProperties` changed"));
    let defs = |kind: &str| json!({"$defs": {"a": {"type": kind}}});
    assert!(broken(&defs("string"), &defs("number")).contains("cannot be judged: only definitions"));
}

#[test]
fn alternatives_are_matched() {
    let kind = |name: &str| json!({"type": name});
    let any_of = |parts: Value| json!({"anyOf": parts});
    let one_of = |parts: Value| json!({"oneOf": parts, "discriminator": {"propertyName": "x"}});
    let optional = any_of(json!([kind("string"), kind("null")]));
    let doubt = "cannot be judged: no alternative is known to cover";
    let cases = [
        (kind("string"), optional.clone(), "", "output: can be there now: null"),
        (optional.clone(), kind("string"), "input: no longer valid: null", ""),
        (optional.clone(), any_of(json!([kind("null"), {"type": "string", "title": "t"}])), "", ""),
        (
            any_of(json!([kind("integer"), kind("null")])),
            any_of(json!([kind("number"), kind("null")])),
            "",
            "output: can be there now: number",
        ),
        (json!({"type": ["string", "null"]}), optional.clone(), &format!("input: {doubt} null|string"), ""),
        (
            one_of(json!([kind("string"), kind("null")])),
            one_of(json!([kind("null"), kind("string")])),
            "",
            "",
        ),
        (
            one_of(json!([kind("string")])),
            one_of(json!([kind("number")])),
            &format!("input: {doubt} string"),
            &format!("output: {doubt} number"),
        ),
        (
            any_of(json!([{"type": "string", "pattern": "a"}])),
            any_of(json!([{"type": "string", "pattern": "b"}])),
            &format!("input: {doubt} string"),
            &format!("output: {doubt} string"),
        ),
        (
            json!({"type": "string", "anyOf": [{"minLength": 1}]}),
            json!({"type": "string", "anyOf": [{"minLength": 2}]}),
            "input: cannot be judged: `anyOf` changed",
            "output: cannot be judged: `anyOf` changed",
        ),
    ];
    for (old, new, input, output) in cases {
        let schema = |part: &Value, other: &Value| json!({"properties": {"input": part, "output": other}});
        let empty = json!({"type": "object"});
        assert_eq!(broken(&schema(&old, &empty), &schema(&new, &empty)), input, "{old} to {new}");
        assert_eq!(broken(&schema(&empty, &old), &schema(&empty, &new)), output, "{old} to {new}");
    }
}

#[test]
fn hostile_schemas_end() {
    // Recursive types whose cycles differ in length.
    let ring = |length: usize, kind: &str| {
        let next = |n: usize| json!({"$ref": format!("#/$defs/{}", (n + 1) % length)});
        let node = |n: usize| {
            (n.to_string(), json!({"type": "object", "properties": {"next": next(n), "v": {"type": kind}}}))
        };
        json!({"$ref": "#/$defs/0", "$defs": (0..length).map(node).collect::<serde_json::Map<_, _>>()})
    };
    assert_eq!(broken(&ring(1, "integer"), &ring(2, "number")), "");
    assert!(
        broken(&ring(1, "number"), &ring(1, "integer")).contains("v: `type` narrowed from number to integer")
    );
    assert!(broken(&ring(7, "string"), &ring(11, "string")).contains("cannot be judged: nested too deep"));
    let circle =
        json!({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}});
    assert!(broken(&circle, &ring(1, "string")).contains("in circles"));
    assert_eq!(listed(&circle), ".! any");
    // Each type holds the next one many times, so that the paths are beyond counting.
    let bomb = |word: &str, kind: &str| {
        let node = |n: usize| {
            let next = json!({"$ref": format!("#/$defs/{}", n + 1)});
            let parts: Vec<_> = (0..8).map(|_| next.clone()).collect();
            let properties: serde_json::Map<_, _> = (0..8).map(|n| (n.to_string(), next.clone())).collect();
            let part = if word == "properties" { json!({word: properties}) } else { json!({word: parts}) };
            (n.to_string(), part)
        };
        let mut defs: serde_json::Map<_, _> = (0..24).map(node).collect();
        defs.insert("24".to_owned(), json!({"type": kind}));
        json!({"$ref": "#/$defs/0", "$defs": defs})
    };
    for word in ["properties", "allOf", "anyOf", "oneOf"] {
        let broken = broken(&bomb(word, "string"), &bomb(word, "number"));
        assert!(broken.contains("cannot be judged"), "{word}: {broken:.300}");
        assert!(fields(&bytes(&bomb(word, "string")), "s.json").is_err(), "{word}");
    }
    let many = |kind: &str| {
        let properties: serde_json::Map<_, _> =
            (0..20_000).map(|n| (n.to_string(), json!({"type": kind}))).collect();
        json!({"properties": properties})
    };
    assert_eq!(incompatibilities(&bytes(&many("a")), &bytes(&many("b")), "s.json").unwrap().len(), 1_001);
    assert!(fields(&bytes(&many("a")), "s.json").unwrap_err().one_line().contains("too many fields"));
    let deep = "{\"items\":".repeat(100) + "true" + &"}".repeat(100);
    assert!(fields(deep.as_bytes(), "s.json").unwrap_err().one_line().contains("nested deeper"));
    let open = vec![b'['; values::MAX_BYTES as usize];
    assert!(incompatibilities(&open, &open, "s.json").unwrap_err().one_line().contains("nested deeper"));
    let strange =
        json!({"type": "object", "properties": {"a\u{1b}": {"type": "string"}}, "required": ["a\u{1b}"]});
    assert_eq!(broken(&json!({"type": "object"}), &strange), "a\\u{1b}: new required field");
}

#[test]
fn keys_are_sorted() {
    // Texts of schemas are compared, so no dependency may switch on serde_json's `preserve_order`.
    assert_eq!(json!({"b": 1, "a": 2}).to_string(), r#"{"a":2,"b":1}"#);
}
