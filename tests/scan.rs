//! What loading weights could run: pickles by Python itself, named without being loaded.

use crate::support::models::{churn, declare, record};
use crate::support::{Repo, Sandbox, prepared};

/// Writes pickles that write the file `ran` when somebody loads them, and some that are harmless.
const MAKE: &str = r#"
import collections, io, os, pickle, zipfile

class Evil:
    def __init__(self, function, *arguments):
        self.call = function, arguments
    def __reduce__(self):
        return self.call

for protocol in range(6):
    for name, evil in [("system", Evil(os.system, "touch ran")), ("eval", Evil(eval, "open('ran', 'w')"))]:
        with open(f"evil/{name}-{protocol}.pkl", "wb") as file:
            pickle.dump({"a": [evil]}, file, protocol=protocol)
    with open(f"good/state-{protocol}.pkl", "wb") as file:
        state = collections.OrderedDict(weights=[1.5, 2, -3], name="ä", sizes=(1, 2), more={b"x", None, True, 1 << 70})
        pickle.dump(state, file, protocol=protocol)
with zipfile.ZipFile("evil/nested-in-torch.pt", "w") as archive:
    archive.writestr("model/data.pkl", pickle.dumps(Evil(os.system, "touch ran"), protocol=2))
    archive.writestr("model/version", "3\n")
"#;

fn pickles(repo: &Repo) {
    repo.write("make.py", MAKE);
    repo.sh("mkdir evil good && python3 make.py").ok();
    repo.write(
        "evil/memo.pkl",
        b"\x80\x04\x8c\x06system\x94\x8c\x02os\x940h\x01h\x00\x93\x8c\ttouch ran\x85R.",
    );
    repo.write("evil/inst.pkl", "(S'touch ran'\nios\nsystem\n.");
    repo.write("evil/extension.pkl", b"\x80\x02\x82\x07.");
    repo.write("evil/broken.bin", b"cos\nsystem\n(S'touch ran'\ntR\xff");
    repo.write("good/random.bin", crate::support::noise(3, 5000));
}

#[test]
fn malicious_pickles_are_named_and_never_loaded() {
    let sandbox = Sandbox::new();
    let repo = sandbox.git_repo("repo");
    pickles(&repo);
    repo.model(["verify", "--scan", "good"]).says("state-5.pkl: pickle, which can run code").ok();
    let names = repo.sh("cd evil && ls").ok();
    for name in names.lines() {
        let path = format!("evil/{name}");
        let output = repo.model(["verify", "--scan", &path]);
        let lines: Vec<String> = output.stdout.lines().map(str::to_owned).collect();
        output.fails(3, "sign that loading may run something");
        let global = match name {
            name if name.starts_with("eval") => "eval",
            "extension.pkl" => "extension code 7",
            _ => "system",
        };
        assert!(lines.len() == 1 && lines[0].starts_with(&path) && lines[0].contains(global), "{lines:?}");
        assert!(lines[0].contains(" at byte "), "{lines:?}");
    }
    let all = repo.json(["verify", "--scan", "evil", "good"]);
    assert_eq!(all["schema"], "git-model/verify-scan/v1");
    assert_eq!(all["findings"].as_array().unwrap().len(), names.lines().count());
    let nested = all["findings"]
        .as_array()
        .unwrap()
        .iter()
        .find(|finding| finding["path"] == "evil/nested-in-torch.pt");
    assert_eq!(nested.unwrap()["member"], "model/data.pkl");
    assert!(!repo.exists("ran"));
    // The pickles do what they threaten: Python runs them.
    repo.sh("python3 -c 'import pickle; pickle.load(open(\"evil/system-0.pkl\", \"rb\"))'").ok();
    assert!(repo.exists("ran"));
    repo.model(["verify", "--scan"]).fails(2, "name files, directories or releases");
    repo.model(["verify", "--scan", "absent.pkl"]).says("no such file here").fails(2, "absent.pkl");
}

/// Of packages that ship what PyTorch wrote: before its archives, and as a program.
#[test]
fn what_real_pytorch_wrote_is_told_apart() {
    let sandbox = Sandbox::new();
    let repo = sandbox.git_repo("repo");
    let files = prepared("torch-files");
    let look = |name: &str| {
        let path = files.join(name);
        assert!(path.exists(), "{}", path.display());
        repo.model(["verify", "--scan", path.to_str().unwrap()])
    };
    for name in ["alex", "squeeze", "vgg"] {
        look(&format!("lpips/weights/v0.1/{name}.pth")).says("pickle, which can run code").ok();
    }
    let program = look("silero_vad/data/silero_vad.jit");
    assert_eq!(program.stdout.matches("not known to be harmless").count(), 0, "{program}");
    program.says("a TorchScript program").fails(3, "1 sign that");
    for name in ["silero_vad.onnx", "silero_vad_16k.safetensors"] {
        look(&format!("silero_vad/data/{name}")).never_says("can run code").ok();
    }
}

#[test]
fn a_release_is_scanned_and_a_gate_keeps_formats_out() {
    let sandbox = Sandbox::new();
    let repo = churn(sandbox.repo("repo"));
    repo.model(["release", "churn", "1.0.0"]).ok();
    repo.model(["verify", "--scan", "churn@1.0.0"]).says("looked into 1 file").ok();
    pickles(&repo);
    repo.sh("cp evil/nested-in-torch.pt m/weights.pt; rm -r evil good make.py").ok();
    repo.model(["add", "m/weights.pt"]).ok();
    repo.write("m/eval.json", r#"{"auc": 0.3}"#);
    declare(&repo, "weights.safetensors", "weights.pt");
    record(&repo, "a pickle");
    repo.model(["release", "churn", "2.0.0"]).ok();
    // Also where the weights have to be fetched first.
    let clone = sandbox.clone_of(&repo, "clone");
    clone.model(["remote", "trust"]).ok();
    for repo in [&repo, &clone] {
        let output = repo.model(["verify", "--scan", "churn@2.0.0"]);
        assert!(output.stdout.contains("m/weights.pt!model/data.pkl at byte "), "{output}");
        output.fails(3, "1 sign");
    }

    let text = repo.text("m/model.yaml");
    repo.write("m/model.yaml", format!("{text}gates: {{formats: [safetensors, gguf, onnx]}}\n"));
    record(&repo, "no pickles any more");
    repo.model(["check", "churn"]).says("torch is not among safetensors, gguf, onnx").fails(3, "churn");
    repo.model(["release", "churn", "3.0.0"]).fails(3, "formats: torch is not among");
    declare(&repo, "", "gates: {formats: [safetensors, gguf, onnx]}\n");
    repo.write("m/eval.json", r#"{"auc": 0.4}"#);
    record(&repo, "tensors only");
    repo.model(["check", "churn"]).says("pass  formats").ok();
    repo.model(["release", "churn", "3.0.0"]).ok();
}
