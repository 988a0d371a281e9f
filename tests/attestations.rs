//! Signatures, bills of materials and provenance, each read by the tool or library of its format's own project.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::models::{LINEAGE, WEIGHTS, churn, declare, lineage, record, train};
use crate::support::{Output, Repo, Sandbox, prepared, published, run};

const CURVES: [&str; 3] = ["prime256v1", "secp384r1", "secp521r1"];

/// A released model.
fn released(sandbox: &Sandbox) -> Repo {
    let repo = churn(sandbox.repo("repo"));
    declare(&repo, "", "description: Says who leaves\nlicense: Apache-2.0\n");
    record(&repo, "words");
    repo.model(["release", "churn", "1.0.0"]).ok();
    repo
}

/// A key pair by OpenSSL: `NAME.pem` and `NAME.pub` beside the repository.
fn make_key(repo: &Repo, name: &str, curve: &str) {
    repo.sh(&format!(
        "openssl ecparam -name {curve} -genkey -noout -out ../{name}.pem && openssl pkey -in ../{name}.pem -pubout -out ../{name}.pub"
    ))
    .ok();
}

/// `model_signing <verb> key` with a directory, its signature and a key.
fn tool(repo: &Repo, verb: &str, dir: &str, key: &str) -> Output {
    let kind = if verb == "sign" { "--private_key" } else { "--public_key" };
    let signature = format!("{dir}/model.sig");
    let mut command = repo.command(prepared("attest-1.1.1").join("bin/model_signing"));
    command.args([verb, "key", dir, "--signature", &signature, kind, key]);
    run(command)
}

/// A document read by the library of its format.
fn second_reader(repo: &Repo, kind: &str, file: &str) -> String {
    let mut command = repo.command(prepared("attest-1.1.1").join("bin/python3"));
    command
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/second_readers.py"))
        .args([kind, file]);
    run(command).ok()
}

fn verify(repo: &Repo, target: &str, key: &str) -> Output {
    repo.model(["verify", "--signature", target, "--public-key", key])
}

#[test]
fn the_reference_tool_and_git_model_accept_and_refuse_the_same() {
    let sandbox = Sandbox::new();
    let repo = released(&sandbox);
    for curve in CURVES {
        make_key(&repo, curve, curve);
    }
    make_key(&repo, "other", CURVES[0]);
    repo.model(["get", "churn@1.0.0", "-o", "../out"]).ok();
    for curve in CURVES {
        let (private, public) = (format!("../{curve}.pem"), format!("../{curve}.pub"));
        // Ours over a release; the second time with the key in PKCS #8.
        for _ in 0..2 {
            repo.model(["sign", "churn@1.0.0", "--key", &private, "-o", "../out/model.sig", "--no-attach"])
                .ok();
            tool(&repo, "verify", "../out", &public).ok();
            verify(&repo, "../out", &public).says("as signed with key").ok();
            repo.sh(&format!("openssl pkcs8 -topk8 -nocrypt -in {private} -out ../8 && mv ../8 {private}"))
                .ok();
        }
        // Ours over the directory, then the tool's.
        repo.model(["sign", "../out", "--key", &private]).ok();
        tool(&repo, "verify", "../out", &public).ok();
        tool(&repo, "sign", "../out", &private).ok();
        verify(&repo, "../out", &public).ok();
    }
    let (private, public) = ("../prime256v1.pem", "../prime256v1.pub");
    let weights = format!("../out/{WEIGHTS}");
    for ours in [true, false] {
        match ours {
            true => repo.model(["sign", "../out", "--key", private]).ok(),
            false => tool(&repo, "sign", "../out", private).ok(),
        };
        let refused = |by: &str, said: &str| {
            assert_ne!(tool(&repo, "verify", "../out", by).code, 0, "{said}");
            verify(&repo, "../out", by).fails(3, said);
        };
        let good = repo.read(&weights);
        let mut flipped = good.clone();
        *flipped.last_mut().unwrap() ^= 1;
        repo.write(&weights, flipped);
        refused(public, "m/weights.safetensors: other bytes than were signed");
        repo.write(&weights, &good);
        repo.write("../out/src/new.py", "");
        refused(public, "src/new.py: not signed");
        repo.sh("rm ../out/src/new.py; mv ../out/src/pre.py ../pre.py").ok();
        refused(public, "src/pre.py: signed, and missing");
        repo.sh("mv ../pre.py ../out/src/pre.py; ln -s pre.py ../out/src/link.py").ok();
        refused(public, "neither a file nor a directory");
        repo.sh("rm ../out/src/link.py").ok();
        refused("../other.pub", "signed with another key");
        let bundle = repo.text("../out/model.sig");
        let mut edited: Value = serde_json::from_str(&bundle).unwrap();
        let payload = edited["dsseEnvelope"]["payload"].as_str().unwrap().to_owned();
        // A blank behind the statement says the same, and is not what was signed.
        let longer = repo.sh(&format!("(echo {payload} | base64 -d; printf ' ') | base64 -w0")).ok();
        edited["dsseEnvelope"]["payload"] = longer.into();
        repo.write("../out/model.sig", edited.to_string());
        refused(public, "its signature does not fit");
        repo.write("../out/model.sig", bundle);
        verify(&repo, "../out", public).ok();
    }
}

#[test]
fn a_signature_is_kept_in_the_store_and_found_there() {
    let sandbox = Sandbox::new();
    let repo = released(&sandbox);
    make_key(&repo, "key", CURVES[0]);
    make_key(&repo, "other", CURVES[1]);
    let tag = repo.git(["rev-parse", "churn@v1.0.0"]).ok();
    verify(&repo, "churn@1.0.0", "../key.pub").fails(3, "its store has no signature");
    let signed = repo.json(["sign", "churn@1.0.0", "--key", "../key.pem"]);
    assert_eq!(signed["schema"], "git-model/sign/v1");
    let resolved = repo.json(["resolve", "churn@1.0.0", "--attestations"]);
    assert_eq!(resolved["attestations"], json!([signed["stored"]]));
    let place = format!("attest/sha256/{}/", resolved["digest"].as_str().unwrap());
    assert!(signed["stored"].as_str().unwrap().starts_with(&place), "{signed}");
    repo.model(["resolve", "churn@1.0.0", "--attestations"]).says("attested ").ok();
    let payload = repo.git(["cat-file", "tag", "churn@v1.0.0"]).ok();
    assert!(payload.contains(signed["root"].as_str().unwrap()), "the release's own root digest was signed");
    assert_eq!(repo.git(["rev-parse", "churn@v1.0.0"]).ok(), tag, "nothing was rewritten");

    let verified = repo.json(["verify", "--signature", "churn@1.0.0", "--public-key", "../key.pub"]);
    assert_eq!((&verified["root"], &verified["signature"]), (&signed["root"], &signed["stored"]));
    verify(&repo, "churn@1.0.0", "../other.pub").fails(3, "signed with another key");
    // Whoever deploys it has no clone.
    let pod = sandbox.at("").env("GIT_MODEL_TRUST", sandbox.join("store").display().to_string());
    let url = format!("file://{}", repo.path.display());
    let from = ["--public-key", "key.pub", "--repo", &url, "-o", "model.sig"];
    pod.model([&["verify", "--signature", "churn@1.0.0"][..], &from].concat()).ok();
    pod.model(["get", "churn@1.0.0", "--repo", &url, "-o", "out"]).ok();
    pod.model(["verify", "--signature", "out", "--public-key", "key.pub", "--bundle", "model.sig"]).ok();

    // Another version does not pass by it, not even one with the same model digest.
    repo.write("m/eval.json", r#"{"auc": 0.2}"#);
    record(&repo, "judged again");
    verify(&repo, "HEAD", "../key.pub").fails(3, "m/eval.json: other bytes than were signed");
    repo.model(["sign", "HEAD", "--key", "../other.pem"]).ok();
    verify(&repo, "HEAD", "../other.pub").ok();
    verify(&repo, "churn@1.0.0", "../key.pub").ok();
    train(&repo, 9.0);
    record(&repo, "other");
    verify(&repo, "HEAD", "../key.pub").fails(3, "its store has no signature");
    // Bytes in the store that are not what their name says are no signature.
    let kept = sandbox.join("store").join(signed["stored"].as_str().unwrap());
    std::fs::write(kept, "{}").unwrap();
    verify(&repo, "churn@1.0.0", "../key.pub").fails(3, "does not hold what its name says");
}

#[test]
fn the_specification_s_test_vectors() {
    let sandbox = Sandbox::new();
    let repo = sandbox.git_repo("repo");
    make_key(&repo, "key", CURVES[0]);
    for (name, said) in [
        ("valid-key", "signed with another key (e8450dec4eb9)"),
        ("valid-certificate", "signed by a certificate, not with a key"),
        ("valid-sigstore", "signed by Sigstore, not with a key"),
        ("invalid-empty", "not a bundle"),
        ("invalid-missing-envelope", "missing field `dsseEnvelope`"),
        ("invalid-missing-tlog-entries", "no entry of its log"),
        ("invalid-missing-verification-material", "missing field `verificationMaterial`"),
        ("invalid-wrong-predicate", "its predicate type is https://example.com/wrong-predicate/v1.0"),
    ] {
        let Some(vectors) = published("published_vectors_are_read", "oms") else { break };
        let bundle = vectors.join(format!("{name}.bundle.json"));
        let bundle = bundle.to_str().unwrap();
        repo.model(["verify", "--signature", ".", "--public-key", "../key.pub", "--bundle", bundle])
            .fails(3, said);
    }
    repo.model(["verify", "--signature", ".", "--public-key", "../key.pub"]).fails(3, "no such signature");
}

#[test]
fn keys_that_cannot_be_used_are_told_apart() {
    let sandbox = Sandbox::new();
    let repo = sandbox.git_repo("repo");
    make_key(&repo, "key", CURVES[0]);
    make_key(&repo, "bitcoin", "secp256k1");
    repo.write("../dir/file", "x");
    repo.sh("cd .. && openssl pkcs8 -topk8 -in key.pem -passout pass:x -out encrypted.pem && \
         openssl ec -in key.pem -aes128 -passout pass:x -out old.pem && openssl genrsa -out rsa.pem 2048 && \
         openssl genpkey -algorithm ed25519 -out ed.pem && echo words > words.pem && \
         openssl ecparam -name prime256v1 -genkey -out with-parameters.pem")
        .ok();
    for (key, code, said) in [
        ("encrypted.pem", 1, "the key is encrypted"),
        ("old.pem", 1, "the key is encrypted"),
        ("rsa.pem", 1, "P-256, P-384 or P-521"),
        ("ed.pem", 1, "P-256, P-384 or P-521"),
        ("bitcoin.pem", 1, "P-256, P-384 or P-521"),
        ("key.pub", 1, "holds no private key"),
        ("words.pem", 1, "holds no private key"),
        ("absent.pem", 2, "no such file"),
    ] {
        let errors = repo.model(["sign", "../dir", "--key", &format!("../{key}")]).fails(code, said);
        assert!(errors.contains("hint: ") || key == "words.pem", "{errors}");
    }
    assert!(!repo.exists("../dir/model.sig"));
    repo.model(["sign", "../dir", "--key", "../with-parameters.pem"]).ok();
    verify(&repo, "../dir", "../key.pem").fails(1, "holds no public key");
    verify(&repo, "../dir", "../bitcoin.pub").fails(1, "P-256, P-384 or P-521");
    repo.model(["verify", "--signature", "../dir"]).fails_usage();
}

#[test]
fn a_bill_of_materials_holds_what_is_recorded() {
    let sandbox = Sandbox::new();
    let repo = released(&sandbox);
    repo.write("requirements.txt", "numpy==1.26.4\nscikit-learn>=1.4\n");
    repo.model(["record", "churn", "--eval", "m/eval.json"]).ok();
    record(&repo, "locked");
    repo.model(["release", "churn", "1.1.0"]).ok();
    repo.model(["sbom", "churn@1.1.0", "-o", "../bill.json"]).ok();
    let said = second_reader(&repo, "bill", "../bill.json");
    assert!(said.starts_with("machine-learning-model churn "), "{said}");

    let bill: Value = serde_json::from_str(&repo.text("../bill.json")).unwrap();
    let model = &bill["metadata"]["component"];
    assert_eq!((&model["version"], &model["purl"]), (&"1.1.0".into(), &"pkg:generic/churn@1.1.0".into()));
    assert_eq!(model["licenses"], json!([{"license": {"id": "Apache-2.0"}}]));
    assert_eq!(model["modelCard"]["modelParameters"]["datasets"], json!([{"ref": "data:train"}]));
    let metrics = &model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"];
    assert_eq!(metrics[0], json!({"type": "auc", "value": "0.1"}));
    assert!(model["modelCard"].get("considerations").is_none(), "nobody stated any");
    let component = |name: &str| {
        let components = bill["components"].as_array().unwrap();
        components
            .iter()
            .find(|component| component["name"] == name)
            .unwrap_or_else(|| panic!("{name}"))
            .clone()
    };
    assert_eq!(component("numpy")["purl"], "pkg:pypi/numpy@1.26.4");
    assert_eq!(component("scikit-learn")["purl"], "pkg:pypi/scikit-learn");
    assert!(component("scikit-learn").get("version").is_none(), "a limit is no version");
    assert_eq!(component("src/pre.py")["type"], "file");
    assert_eq!(
        component("src/pre.py")["hashes"][0]["content"],
        crate::support::sha256(&repo.join("src/pre.py"))
    );
    assert_eq!(component("train")["type"], "data");
    let time = repo.git(["for-each-ref", "--format=%(taggerdate:unix)", "refs/tags/churn@v1.1.0"]).ok();
    let expected = repo.sh(&format!("date -u -d @{} +%Y-%m-%dT%H:%M:%SZ", time.trim())).ok();
    assert_eq!(bill["metadata"]["timestamp"], expected.trim());

    // The same bytes elsewhere; and kept with the version.
    let clone =
        sandbox.clone_of(&repo, "clone").env("GIT_MODEL_TRUST", sandbox.join("store").display().to_string());
    assert_eq!(clone.model(["sbom", "churn@1.1.0"]).ok(), repo.text("../bill.json"));
    clone
        .model(["sbom", "churn@1.1.0", "--attach", "-o", "../again.json"])
        .says("kept as attest/sha256/")
        .ok();
    let kept = repo.json(["resolve", "churn@1.1.0", "--attestations"]);
    assert_eq!(kept["attestations"].as_array().unwrap().len(), 1);
    assert_ne!(repo.model(["sbom", "churn@1.0.0"]).ok(), repo.text("../bill.json"));
}

/// The provenance of HEAD, checked by in-toto's own library.
fn provenance(repo: &Repo) -> Value {
    repo.model(["provenance", "HEAD", "-o", "../provenance.json"]).ok();
    assert_eq!(
        second_reader(repo, "provenance", "../provenance.json").trim(),
        "https://slsa.dev/provenance/v1"
    );
    serde_json::from_str(&repo.text("../provenance.json")).unwrap()
}

#[test]
fn provenance_tells_observed_from_declared() {
    let sandbox = Sandbox::new();
    let repo = released(&sandbox);
    let declared = provenance(&repo);
    assert_eq!(declared["predicate"]["buildDefinition"]["externalParameters"]["basis"], "declared");
    let details = &declared["predicate"]["runDetails"];
    assert_eq!(details["builder"]["id"], "urn:git-model:builder:unknown");
    assert!(details.get("metadata").is_none(), "nobody saw when it ran");

    repo.write("train.sh", "cp fresh m/weights.safetensors\n");
    repo.write("fresh", crate::support::models::weights(7.0));
    repo.model(["run", "churn", "--note", "tried", "--param", "lr=1", "--", "sh", "train.sh"]).ok();
    repo.git(["commit", "-q", "-a", "-m", "trained"]).ok();
    let observed = provenance(&repo);
    assert_eq!(observed["subject"][0]["name"], WEIGHTS);
    assert_eq!(observed["subject"][0]["digest"]["sha256"], crate::support::sha256(&repo.join(WEIGHTS)));
    let (definition, details) =
        (&observed["predicate"]["buildDefinition"], &observed["predicate"]["runDetails"]);
    assert_eq!(definition["externalParameters"]["command"], json!(["sh", "train.sh"]));
    assert_eq!(details["builder"]["id"], "urn:git-model:builder:run");
    assert!(details["metadata"]["startedOn"].is_string());
    let names: Vec<&str> = definition["resolvedDependencies"]
        .as_array()
        .unwrap()
        .iter()
        .map(|d| d["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["base-commit", "src/pre.py", "m/train.yaml", "requirements.txt", "train"]);
    assert_eq!(provenance(&repo), observed, "the same again");

    // Every fact that is taken out of the record is gone from the statement, and nothing else is.
    for (fact, pointer) in [
        ("/training/note", "/predicate/buildDefinition/externalParameters/note"),
        ("/training/params", "/predicate/buildDefinition/externalParameters/params"),
        ("/training/run/host", "/predicate/buildDefinition/internalParameters"),
        ("/training/base_commit", "/predicate/buildDefinition/resolvedDependencies/0"),
        ("/training/inputs/code", "/predicate/buildDefinition/resolvedDependencies/1"),
        ("/training/inputs/config", "/predicate/buildDefinition/resolvedDependencies/2"),
        ("/training/inputs/environment", "/predicate/buildDefinition/resolvedDependencies/3"),
        ("/training/inputs/data/train", "/predicate/buildDefinition/resolvedDependencies/4"),
    ] {
        let whole = repo.text(LINEAGE);
        let mut record = lineage(&repo);
        assert!(remove(&mut record, fact), "{fact}");
        repo.write(LINEAGE, record.to_string());
        repo.git(["commit", "-q", "-a", "-m", fact]).ok();
        let mut expected = observed.clone();
        assert!(remove(&mut expected, pointer), "{pointer}");
        assert_eq!(provenance(&repo), expected, "{fact}");
        repo.write(LINEAGE, whole);
    }
    // Code that changed after the training is not what the weights were made with.
    repo.git(["commit", "-q", "-a", "-m", "whole"]).ok();
    repo.write("src/pre.py", "print('later')\n");
    record(&repo, "later");
    let later = provenance(&repo);
    let code = &later["predicate"]["buildDefinition"]["resolvedDependencies"][1];
    assert_eq!((&code["name"], &code["annotations"]["kind"]), (&"code".into(), &"list".into()));
    // Without a record of the training there is nothing to state.
    let mut record = lineage(&repo);
    assert!(remove(&mut record, "/training"));
    repo.write(LINEAGE, record.to_string());
    repo.git(["commit", "-q", "-a", "-m", "nothing"]).ok();
    repo.model(["provenance", "HEAD"]).fails(3, "does not say how the weights came about");
}

/// Takes out what a JSON pointer leads to.
fn remove(value: &mut Value, pointer: &str) -> bool {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    match value.pointer_mut(parent) {
        Some(Value::Object(map)) => map.remove(key).is_some(),
        Some(Value::Array(items)) => {
            items.remove(key.parse().unwrap());
            true
        }
        _ => false,
    }
}
