use super::*;

fn show(text: &str, name: &str) -> String {
    let found = packages(text.as_bytes(), name).unwrap().expect("a known lock");
    found.iter().map(|(name, version)| format!("{name}={version}")).collect::<Vec<_>>().join("\n")
}

fn refused(text: &str, name: &str) -> String {
    packages(text.as_bytes(), name).unwrap_err().one_line()
}

#[test]
fn every_name_is_known() {
    for name in NAMES {
        assert!(!matches!(packages(b"", name), Ok(None)), "{name}");
        assert!(!matches!(packages(b"", &format!("env/{name}")), Ok(None)), "{name}");
    }
    assert_eq!(packages(b"\xff", "yarn.lock").unwrap(), None);
    assert_eq!(packages(b"\xff", "uv.lock/x").unwrap(), None);
}

#[test]
fn toml_locks() {
    let uv = r#"
version = 1
requires-python = ">=3.12"
[[package]]
name = "Flash_Attn"
version = "2.6.3"
source = { registry = "https://pypi.org/simple" }
wheels = [{ url = "https://x/y.whl", hash = "sha256:00", size = 3 }]
[[package]]
name = "numpy"
version = "2.1.0"
source = { registry = "https://pypi.org/simple" }
[[package]]
name = "numpy"
version = "1.26.4"
source = { registry = "https://pypi.org/simple" }
[[package]]
name = "tool"
version = "0.1.0"
source = { git = "https://github.com/x/tool?rev=main#0a1b2c" }
[[package]]
name = "me"
source = { virtual = "." }
[[package]]
name = "sub"
version = "1"
source = { editable = "sub" }
"#;
    assert_eq!(show(uv, "uv.lock"), "flash-attn=2.6.3\nnumpy=1.26.4, 2.1.0\ntool=0.1.0 (git 0a1b2c)");
    let poetry = r#"
[[package]]
name = "ruamel.yaml"
version = "0.18"
[package.dependencies]
name = "not-this"
[[package]]
name = "tool"
version = "1"
[package.source]
type = "git"
url = "https://github.com/x/tool"
reference = "main"
resolved_reference = "0a1b2c"
[[package]]
name = "sub"
version = "1"
[package.source]
type = "directory"
url = "sub"
[metadata]
lock-version = "2.0"
"#;
    assert_eq!(show(poetry, "poetry.lock"), "ruamel-yaml=0.18\ntool=1 (git 0a1b2c)");
    assert_eq!(show("package = []\n", "poetry.lock"), "");
    let cargo = r#"
version = 4
[[package]]
name = "me"
version = "0.1.0"
dependencies = ["serde_json"]
[[package]]
name = "serde_json"
version = "1.0.1"
source = "registry+https://github.com/rust-lang/crates.io-index"
[[package]]
name = "tool"
version = "1.0.0"
source = "git+https://github.com/x/tool?branch=main#0a1b2c"
"#;
    assert_eq!(show(cargo, "Cargo.lock"), "serde_json=1.0.1\ntool=1.0.0 (git 0a1b2c)");
}

#[test]
fn json_locks() {
    let pipfile = r#"{"_meta": {"hash": {"sha256": "x"}}, "default": {"Numpy": {"version": "==1.26.4", "hashes": []},
        "tool": {"git": "https://github.com/x/tool", "ref": "0a1b2c"}, "me": {"path": ".", "editable": true},
        "wheel": {"file": "https://x/w.whl"}}, "develop": {"pytest": {"version": "==8.0"}}}"#;
    let expected = "numpy=1.26.4\npytest=8.0\ntool=* (git 0a1b2c)\nwheel=https://x/w.whl";
    assert_eq!(show(pipfile, "Pipfile.lock"), expected);
    let npm = r#"{"lockfileVersion": 3, "packages": {"": {"name": "me", "version": "1.0.0"},
        "node_modules/@scope/a": {"version": "1.2.3", "resolved": "https://registry.npmjs.org/a.tgz"},
        "node_modules/b": {"version": "1.0.0"}, "node_modules/c/node_modules/b": {"version": "2.0.0"},
        "node_modules/alias": {"name": "c", "version": "3.0.0"},
        "node_modules/d": {"version": "1.0.0", "resolved": "git+ssh://git@github.com/x/d.git#0a1b2c"},
        "node_modules/own": {"resolved": "packages/own", "link": true}, "packages/own": {"version": "9"}}}"#;
    let expected = "@scope/a=1.2.3\nb=1.0.0, 2.0.0\nc=3.0.0\nd=1.0.0 (git 0a1b2c)";
    assert_eq!(show(npm, "package-lock.json"), expected);
}

#[test]
fn requirements_by_line() {
    let cases = [
        ("numpy==1.26.4", "numpy=1.26.4"),
        ("Typing_Extensions.X === 4.0  # why", "typing-extensions-x=4.0"),
        ("torch == 2.1.0+cu118 ; python_version < '3.12'", "torch=2.1.0+cu118"),
        ("uvicorn[standard, x] ==0.1", "uvicorn=0.1"),
        ("a>=1.0, <2;extra=='x'", "a=>=1.0,<2"),
        ("a (==1.0)", "a=1.0"),
        ("a==1.*", "a===1.*"),
        ("a==1,!=2", "a===1,!=2"),
        ("a~=1.4", "a=~=1.4"),
        ("a", "a=*"),
        ("a @ https://x/a-1.whl#sha256=00;x ; os_name == 'nt'", "a=https://x/a-1.whl#sha256=00;x"),
        ("a[b]@git+https://x/a@0a1b", "a=git+https://x/a@0a1b"),
        (
            "git+https://x/A_b.git@0a1b#egg=A_b&subdirectory=s",
            "a-b=git+https://x/A_b.git@0a1b#egg=A_b&subdirectory=s",
        ),
        ("-e git+https://x/a#egg=a", "a=git+https://x/a#egg=a"),
        ("https://x/a-1.whl", "https://x/a-1.whl=*"),
        ("a==1 \\\n    --hash=sha256:00 \\\n    --hash=sha256:11\nb==2", "a=1\nb=2"),
        ("a==1 --hash=sha256:00\r\nb==2\r\n", "a=1\nb=2"),
        ("# a==1 \\\nb==2", "b=2"),
        ("a==1\na==2\nA==1", "a=1, 2"),
        (
            "-r other.txt\n-c limits.txt\n--index-url https://x\n-e .\n./wheels/a.whl\na @ file:///x\n\n  \n",
            "",
        ),
        ("a==1 \\", "a=1"),
        ("\\\n\\\n\\", ""),
    ];
    for (text, expected) in cases {
        assert_eq!(show(text, "requirements.txt"), expected, "{text}");
    }
}

#[test]
fn conda_environment() {
    let text = "\
name: train
channels:
  - conda-forge
dependencies:  # all of them
  - python=3.11
  - numpy=1.26.4=py311h_0
  - conda-forge::pytorch==2.1
  - scipy >=1.9, <2,!=1.10
  - 'cudatoolkit 11.8 h_0'
  - blas=*=mkl
  - pip

  - pip:
      - requests==2.31
      - -r requirements.txt
      - \"Ruamel.Yaml>=0.17\"
  - zlib
prefix: /opt/conda
other:
  - no=1
";
    let expected = "blas=*=mkl\ncudatoolkit=11.8=h_0\nnumpy=1.26.4=py311h_0\npip=*\npython=3.11\npytorch=2.1\n\
        requests=2.31\nruamel-yaml=>=0.17\nscipy=>=1.9,<2,!=1.10\nzlib=*";
    assert_eq!(show(text, "environment.yml"), expected);
    assert_eq!(show("dependencies:\n- a=1\n- pip:\n  - b==2\n- c\n", "environment.yaml"), "a=1\nb=2\nc=*");
}

#[test]
fn conda_locks() {
    let pixi = "\
version: 6
environments:
  default:
    packages:
      linux-64:
      - conda: https://x/not-this-1-0.conda
packages:
- conda: https://conda.anaconda.org/conda-forge/linux-64/_libgcc_mutex-0.1-conda_forge.tar.bz2
  sha256: fe51
  depends:
  - python_abi 3.12.* *_cp312
  - name: not-this
- conda: https://conda.anaconda.org/conda-forge/noarch/tz-data-2024a-h0.conda
  license: x
- pypi: https://files.pythonhosted.org/Ruamel_yaml-0.18-py3-none-any.whl
  name: Ruamel.yaml
  version: '0.18'
- pypi: ./
  name: me
  version: 0.1.0
- kind: pypi
  name: A_b
  version: 1.0
  url: https://x/a_b-1.0.whl
";
    assert_eq!(show(pixi, "pixi.lock"), "_libgcc_mutex=0.1\na-b=1.0\nruamel-yaml=0.18\ntz-data=2024a");
    let conda_lock = "\
version: 1
metadata:
  channels:
  - url: conda-forge
package:
  - name: numpy
    version: 1.26.4
    manager: conda
    platform: linux-64
    dependencies:
      python: '>=3.8,!=3.9.0'
    url: https://x/numpy-1.26.4-py_0.conda
    hash:
      md5: 00
  - name: numpy
    version: 1.26.4
    manager: conda
    platform: osx-64
    url: https://x/numpy-1.26.4-py_1.conda
  - name: Foo_bar
    version: \"2\"
    manager: pip
    url: https://x/foo.whl
";
    assert_eq!(show(conda_lock, "conda-lock.yml"), "foo-bar=2\nnumpy=1.26.4");
}

#[test]
fn refuses_what_is_no_lock() {
    let many: String = (0..=MAX_PACKAGES).map(|n| format!("p{n}\n")).collect();
    let cases = [
        ("a = ", "env/uv.lock", "env/uv.lock:1: "),
        ("version = 1\n", "uv.lock", "uv.lock: has no list `package`"),
        ("package = 1\n", "Cargo.lock", "has no list `package`"),
        ("[[package]]\nname = 1\n", "poetry.lock", "no `name`"),
        ("[]", "Pipfile.lock", "no mapping `_meta`"),
        ("{\"a\": NaN}", "Pipfile.lock", "`a` is NaN"),
        ("[1]", "package-lock.json", "no mapping `packages`"),
        ("{\"lockfileVersion\": 1, \"dependencies\": {}}", "package-lock.json", "no mapping `packages`"),
        ("name: x\n", "environment.yml", "no list `dependencies`"),
        ("dependencies: [a, b]\n", "environment.yml", "no list `dependencies`"),
        ("dependencies:\n  a: 1\n", "environment.yml", "not a package: a: 1"),
        ("dependencies:\n  - {pip: [a]}\x1b\n", "environment.yml", "not a package: - {pip: [a]}\\u{1b}"),
        ("version: 6\npackages: []\n", "pixi.lock", "no list `packages`"),
        ("package:\n- version: 1\n  url: https://x/y\n", "conda-lock.yml", "no `name`"),
        (&many, "requirements.txt", "more than 100000 packages"),
        (&"[".repeat(values::MAX_BYTES as usize), "package-lock.json", "nested deeper"),
        (&"\n".repeat(values::MAX_BYTES as usize + 1), "pixi.lock", "larger than"),
    ];
    for (text, name, reason) in cases {
        let error = refused(text, name);
        assert!(error.contains(reason), "{name}: {error}");
    }
    assert!(packages(b"\xff", "requirements.txt").unwrap_err().one_line().contains("not UTF-8"));
}
