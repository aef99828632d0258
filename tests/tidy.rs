//! The house's own lints, over the text of the repository: the one environment, the order of layers, stray
//! markers, links. Each check is a function from text to complaints, tested on text that it must complain
//! about.

use std::fs;
use std::path::{Path, PathBuf};

/// Calls that only the environment makes, so that everything above it runs as well on a simulated world.
const ENVIRONMENT_ONLY: [&str; 9] = [
    "std::fs",
    "File::open",
    "OpenOptions",
    "Instant::now",
    "SystemTime::now",
    "UNIX_EPOCH.elapsed",
    "thread::spawn",
    "thread::Builder",
    "thread::sleep",
];

/// Who may make them: the environment itself, and the programs around the engine.
const ENVIRONMENT: [&str; 8] = [
    "src/env.rs",
    "src/clock.rs",
    "src/fs/disk.rs",
    "src/fs/unix.rs",
    "src/fs/windows.rs",
    "src/fs/map.rs",
    "src/bin/",
    "src/server/",
];

/// The layers, lowest first. A module uses modules of a smaller number, and its own children.
const LAYERS: [(&str, u32); 20] = [
    ("model", 0),
    ("fs", 1),
    ("codec", 1),
    ("chunk", 2),
    ("wal", 2),
    ("index", 2),
    ("block", 3),
    ("manifest", 3),
    ("head", 3),
    ("compact", 4),
    ("query", 5),
    ("db", 6),
    ("protocol", 7),
    ("promql", 7),
    ("ingest", 8),
    ("client", 8),
    ("server", 9),
    ("bin", 10),
    // A door for benches into every layer.
    ("bench", 10),
    // A door for fuzz targets.
    ("fuzz", 10),
];

/// Modules that every layer may use.
const OPEN_TO_ALL: [&str; 5] = ["error", "clock", "env", "sync", "ledger"];

/// Numbers of the format: where the code has each, as it has it, and the words of `docs/format.md` that say it.
const LIMITS: [(&str, &str, &str); 34] = [
    ("src/wal/format.rs", "FRAME_SIZE_MAX: usize = 256 << 20", "size n of the payload, at most 256 MiB"),
    ("src/wal/format.rs", "WAL_RECORD_SIZE_MAX: usize = 16 << 20", "a batch (16 MiB) and its definitions"),
    (
        "src/wal/format.rs",
        "LSN_COUNTER_BITS: u32 = 40",
        "incarnation in the upper 24 bits, count of frames below",
    ),
    ("src/wal/format.rs", "FRAME_HEADER_SIZE: usize = 40", "| 40 | n | payload |"),
    ("src/codec/meta.rs", "META_SIZE_MAX: usize = 16 << 20", "of at most 16 MiB, with nothing behind it"),
    ("src/codec/frame.rs", "FRAME_OVERHEAD_SIZE: usize = 8", "| 4 + n | 4 | `u32` CRC-32"),
    ("src/codec/varint.rs", "UVARINT_SIZE_MAX: usize = 10", "at most 10 bytes"),
    ("src/manifest/format.rs", "EDIT_MAGIC: [u8; 4] = *b\"ICED\"", "| 0 | 4 | magic `ICED` |"),
    ("src/manifest/format.rs", "SECTOR_SIZE: usize = 512", "some 512-byte sector"),
    (
        "src/manifest/format.rs",
        "REWRITE_SIZE_MIN: u64 = 64 << 10",
        "grow beyond 64 KiB and beyond four times its base size",
    ),
    ("src/manifest/format.rs", "REWRITE_FACTOR: u64 = 4", "four times its base size"),
    ("src/manifest/format.rs", "BLOCK_COUNT_MAX: usize = 1 << 16", "more than 65,536 live blocks"),
    ("src/block/format.rs", "FOOTER_SIZE: usize = 200", "| 196 | 4 | magic `iceB` |"),
    ("src/block/format.rs", "GROUP_ENTRY_SIZE: usize = 36", "| 32 | 4 | their CRC-32 |"),
    ("src/block/format.rs", "GROUP_SERIES_COUNT_MAX: usize = 64", "up to 64 consecutive series"),
    ("src/block/format.rs", "GROUP_PAGE_COUNT: usize = 1024", "one that has 1,024 pages or more"),
    (
        "src/block/format.rs",
        "INLINE_SIZE_MAX: usize = 48",
        "Values of up to 48 bytes are kept in the directory",
    ),
    ("src/block/format.rs", "BOUND_COUNT_MAX: usize = 64", "only the 64 with the most values"),
    ("src/block/format.rs", "BOUND_SIZE_MAX: usize = 64", "cut to their first 64 bytes"),
    ("src/index/postings.rs", "LIST_COUNT_MAX: usize = 16", "up to 16 of them are a uvarint each"),
    ("src/index/symbol.rs", "VALUE_MARK: u8 = 0xFE", "`0xFE`, value"),
    ("src/index/symbol.rs", "TAG_MARK: u8 = 0xFF", "in order of its key, `0xFF`"),
    ("src/codec/choose.rs", "COLUMN_VALUE_COUNT_MAX: usize = 2_048", "1 to 2,048 samples"),
    ("src/chunk/cut.rs", "PAGE_SAMPLE_COUNT_WANTED: i64 = 1_024", "that holds 1,024 samples"),
    ("src/chunk/cut.rs", "PAGE_SAMPLE_COUNT_MIN: usize = 128", "one with fewer than 128 is joined"),
    ("src/chunk/cut.rs", "PAGE_BYTES_SIZE_MAX: usize = 64 << 10", "strings are also cut at 64 KiB"),
    ("src/chunk/aggregate.rs", "DETAIL_COUNT_MIN: usize = 128", "and for those of fewer than 128 samples"),
    ("src/codec/bits.rs", "BLOCK_VALUE_COUNT: usize = 128", "Residuals in blocks of 128"),
    ("src/codec/bits.rs", "WIDTH_PACKED_MAX: u32 = 57", "width w, 0 to 57 or 64"),
    ("src/codec/prefix.rs", "LENGTH_MAX: u32 = 9", "length of its code, 1 to 9"),
    ("src/codec/prefix.rs", "DIRECT_COUNT: u64 = 16", "Tokens 0 to 15 are those numbers"),
    ("src/codec/text.rs", "EXPANSION_MAX: usize = 255", "more than 255 times its size"),
    ("src/db/reader.rs", "TRY_COUNT_MAX: u32 = 20", "up to 20 times"),
    ("src/db/maintenance.rs", "GRACE: Duration = Duration::from_secs(5)", "no longer names for 5 seconds"),
];

/// File, words of the code, and each variant's name in the code and in `docs/format.md`.
type Enumeration = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

/// Enumerations whose numbers are on disk.
const NUMBERS: [Enumeration; 3] = [
    (
        "src/codec/choose.rs",
        "pub(crate) enum Encoding {",
        &[
            ("Constant = 1", "| 1 | constant |"),
            ("Raw = 2", "| 2 | raw |"),
            ("FrameOfReference = 3", "| 3 | frame of reference |"),
            ("Prefix = 4", "| 4 | prefix |"),
            ("Pco = 5", "| 5 | pco |"),
            ("PcoDoubles = 6", "| 6 | pco, doubles | doubles |"),
            ("Plain = 7", "| 7 | plain |"),
            ("Lz4 = 8", "| 8 | LZ4 |"),
        ],
    ),
    (
        "src/wal/format.rs",
        "pub(crate) enum FrameKind {",
        &[
            ("Batch = 1", "kind: 1 batch, 2 delete, 3 metadata"),
            ("Delete = 2", "kind: 1 batch, 2 delete, 3 metadata"),
            ("Metadata = 3", "kind: 1 batch, 2 delete, 3 metadata"),
        ],
    ),
    (
        "src/model/value.rs",
        "pub enum ValueType {",
        &[
            ("F64 = 1", "one byte type (1 f64, 2 i64, 3 bytes)"),
            ("I64 = 2", "one byte type (1 f64, 2 i64, 3 bytes)"),
            ("Bytes = 3", "one byte type (1 f64, 2 i64, 3 bytes)"),
        ],
    ),
];

/// What is left lying about; put together here so that this file does not complain about itself.
fn stray_markers() -> [String; 5] {
    [["to", "do!"], ["unimple", "mented!"], ["FIX", "ME"], ["XX", "X"], ["#[ign", "ore"]]
        .map(|parts| parts.concat())
}

/// A table of `docs/format.md` whose first row is a magic.
#[derive(Debug, PartialEq)]
struct Layout {
    magic: String,
    version: Option<u64>,
    /// Where the fields of fixed size end; `None` when a field does not start where the one before it ends.
    size: Option<u64>,
}

struct File {
    /// From the root of the repository, with `/`.
    name: String,
    text: String,
}

/// The files below `directory` whose names end in `suffix`.
fn files(directory: &str, suffix: &str) -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut unseen = vec![root.join(directory)];
    while let Some(path) = unseen.pop() {
        let Ok(entries) = fs::read_dir(&path) else { continue };
        for path in entries.map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                unseen.push(path);
            } else if path.to_string_lossy().ends_with(suffix) {
                let name = path.strip_prefix(root).unwrap().to_string_lossy().replace('\\', "/");
                found.push(File { name, text: fs::read_to_string(&path).unwrap() });
            }
        }
    }
    found
}

/// The lines of code: without comments, and without the unit tests at the bottom.
fn code(file: &File) -> impl Iterator<Item = (usize, &str)> {
    let lines = file.text.lines().enumerate().map(|(index, line)| (index + 1, line));
    lines
        .take_while(|(_, line)| !line.starts_with("mod tests {"))
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
}

fn uses_of_the_system(file: &File) -> Vec<String> {
    if ENVIRONMENT.iter().any(|allowed| file.name.starts_with(allowed)) || file.name.ends_with("/tests.rs") {
        return Vec::new();
    }
    let complain = |(number, line): (usize, &str)| {
        let call = ENVIRONMENT_ONLY.iter().find(|call| line.contains(**call))?;
        Some(format!("{}:{number}: {call} belongs to the environment (src/env.rs)", file.name))
    };
    code(file).filter_map(complain).collect()
}

fn layer(module: &str) -> Option<u32> {
    LAYERS.iter().find(|(name, _)| *name == module).map(|(_, layer)| *layer)
}

/// The modules that a line names by `crate::`, the ones in braces included.
fn modules_named(line: &str) -> Vec<&str> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let word = |text| &text[..str::find(text, |c| !is_word(c)).unwrap_or(text.len())];
    let mut names = Vec::new();
    for (at, path) in line.match_indices("crate::") {
        if line[..at].ends_with(|c: char| is_word(c) || c == '$') {
            continue;
        }
        let rest = &line[at + path.len()..];
        match rest.strip_prefix('{') {
            Some(list) => names.extend(list.split(',').map(|item| word(item.trim()))),
            None => names.push(word(rest)),
        }
    }
    names
}

fn uses_upwards(file: &File) -> Vec<String> {
    let path = file.name.trim_start_matches("src/");
    let own = path.split(['/', '.']).next().unwrap_or_default();
    let Some(own_layer) = layer(own) else {
        let known = own == "lib" || OPEN_TO_ALL.contains(&own);
        return if known {
            Vec::new()
        } else {
            vec![format!("{}: {own:?} is in no layer (tests/tidy.rs)", file.name)]
        };
    };
    let complain = |(number, module): (usize, &str)| {
        let fine = module == own
            || OPEN_TO_ALL.contains(&module)
            || layer(module).is_none_or(|layer| layer < own_layer);
        (!fine).then(|| format!("{}:{number}: {own} uses {module}, which is not below it", file.name))
    };
    let named = code(file)
        .flat_map(|(number, line)| modules_named(line).into_iter().map(move |module| (number, module)));
    named.filter_map(complain).collect()
}

fn markers(file: &File) -> Vec<String> {
    let markers = stray_markers();
    let complain = |(index, line): (usize, &str)| {
        let marker = markers.iter().find(|marker| line.contains(marker.as_str()))?;
        Some(format!("{}:{}: stray {marker}", file.name, index + 1))
    };
    file.text.lines().enumerate().filter_map(complain).collect()
}

/// The targets of inline links to files in a page: `[text](target)`, outside of code.
fn link_targets(page: &str) -> Vec<&str> {
    let mut targets = Vec::new();
    let mut in_code = false;
    for line in page.lines() {
        in_code ^= line.trim_start().starts_with("```");
        if in_code {
            continue;
        }
        for part in line.split("](").skip(1) {
            let target = part.split([')', ' ', '#']).next().unwrap_or_default();
            if !target.is_empty() && !target.contains("://") && !target.starts_with("mailto:") {
                targets.push(target);
            }
        }
    }
    targets
}

fn broken_links(file: &File) -> Vec<String> {
    let directory =
        Path::new(env!("CARGO_MANIFEST_DIR")).join(&file.name).parent().map(PathBuf::from).unwrap();
    let broken = link_targets(&file.text).into_iter().filter(|target| !directory.join(target).exists());
    broken.map(|target| format!("{}: the link to {target} leads nowhere", file.name)).collect()
}

/// The layouts that the tables of a page describe.
fn layouts(page: &str) -> Vec<Layout> {
    let mut layouts: Vec<Layout> = Vec::new();
    let mut in_table = false;
    for line in page.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, offset, size, meaning, _] = cells[..] else {
            in_table = false;
            continue;
        };
        if let Some(rest) = meaning.strip_prefix("magic `") {
            let magic = rest.split('`').next().unwrap_or_default().to_owned();
            layouts.push(Layout { magic, version: None, size: Some(0) });
            in_table = true;
        }
        let (Some(layout), true) = (layouts.last_mut(), in_table) else { continue };
        if let Some(version) = meaning.strip_prefix("version: ") {
            layout.version = version.parse().ok();
        }
        if let Ok(size) = size.parse::<u64>() {
            let follows = offset.parse().ok() == layout.size;
            layout.size = layout.size.filter(|_| follows).map(|end| end + size);
        }
    }
    layouts
}

/// The constants of a `format.rs`, as `name` and what stands behind the `=`.
fn constants(file: &File) -> impl Iterator<Item = (&str, &str)> {
    let lines = file.text.lines().filter_map(|line| line.split_once("const ")?.1.split_once('='));
    lines.map(|(name, value)| {
        (name.split(':').next().unwrap_or_default().trim(), value.trim().trim_end_matches(';'))
    })
}

/// Every magic has its table, with the version and the size that the code has for it.
fn undocumented(file: &File, layouts: &[Layout]) -> Vec<String> {
    let value_of = |name: &str| constants(file).find(|(other, _)| *other == name).map(|(_, value)| value);
    let mut complaints = Vec::new();
    for (name, value) in constants(file) {
        let (Some(subject), Some(magic)) = (name.strip_suffix("_MAGIC"), value.strip_prefix("*b\"")) else {
            continue;
        };
        let magic = magic.trim_end_matches('"');
        let Some(layout) = layouts.iter().find(|layout| layout.magic == magic) else {
            complaints.push(format!("{}: docs/format.md has no table for {magic}", file.name));
            continue;
        };
        let expected = [("VERSION", layout.version), ("HEADER_SIZE", layout.size)];
        for (what, documented) in expected {
            let coded = value_of(&format!("{subject}_{what}")).and_then(|value| value.parse().ok());
            if coded.is_some() && coded != documented {
                complaints.push(format!(
                    "{}: {subject}_{what} is {coded:?}, docs/format.md says {documented:?}",
                    file.name
                ));
            }
        }
    }
    complaints
}

#[track_caller]
fn check(files: &[File], rule: impl Fn(&File) -> Vec<String>) {
    let complaints: Vec<String> = files.iter().flat_map(rule).collect();
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn only_the_environment_touches_the_system() {
    let sources = files("src", ".rs");
    assert!(sources.len() > 10, "the sources were found");
    check(&sources, uses_of_the_system);
}

#[test]
fn modules_use_only_what_is_below_them() {
    check(&files("src", ".rs"), uses_upwards);
}

#[test]
fn nothing_is_left_lying_about() {
    for directory in ["src", "tests", "benches", "docs"] {
        check(&files(directory, ".rs"), markers);
    }
}

#[test]
fn links_lead_somewhere() {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let mut pages = files("docs", ".md");
    pages.extend(fs::read_to_string(readme).ok().map(|text| File { name: "README.md".to_owned(), text }));
    check(&pages, broken_links);
}

#[test]
fn format_tables_agree_with_the_constants() {
    let pages = files("docs", "format.md");
    let layouts: Vec<Layout> = pages.iter().flat_map(|page| layouts(&page.text)).collect();
    check(&files("src", "/format.rs"), |file| undocumented(file, &layouts));
}

/// A number of the format that the code or the page has another way.
fn unequal(code: &str, page: &str, coded: &str, documented: &str) -> Option<String> {
    // Lines of a page end anywhere.
    let page = page.split_whitespace().collect::<Vec<_>>().join(" ");
    match (code.contains(coded), page.contains(documented)) {
        (true, true) => None,
        (false, _) => Some(format!("the code no longer has `{coded}`; docs/format.md says: {documented}")),
        (true, false) => Some(format!("docs/format.md no longer says `{documented}`; the code has {coded}")),
    }
}

#[test]
fn numbers_in_the_format_are_those_of_the_code() {
    let read = |name: &str| fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap();
    let page = read("docs/format.md");
    let limits = LIMITS.iter().filter_map(|(file, coded, documented)| {
        unequal(&read(file), &page, &format!("const {coded};"), documented)
    });
    let mut complaints: Vec<String> = limits.collect();
    for (file, start, numbers) in NUMBERS {
        let code = read(file);
        let body = code.split(start).nth(1).unwrap_or_default().split("\n}").next().unwrap_or_default();
        complaints.extend(
            numbers
                .iter()
                .filter_map(|(coded, documented)| unequal(body, &page, &format!("{coded},"), documented)),
        );
        assert_eq!(body.matches(" = ").count(), numbers.len(), "{file}: a number that is not compared");
    }
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
    assert!(unequal("const A: u8 = 1;", "one", "const A: u8 = 2;", "one").is_some());
    assert!(unequal("const A: u8 = 1;", "two", "const A: u8 = 1;", "one").is_some());
}

#[track_caller]
fn complains(rule: impl Fn(&File) -> Vec<String>, name: &str, text: &str, expected: usize) {
    let complaints = rule(&File { name: name.to_owned(), text: text.to_owned() });
    assert_eq!(complaints.len(), expected, "{complaints:?}");
}

#[test]
fn the_rules_find_what_they_are_for() {
    complains(uses_of_the_system, "src/wal/queue.rs", "let now = Instant::now();\nthread::spawn(work);", 2);
    complains(
        uses_of_the_system,
        "src/wal/queue.rs",
        "// Instant::now is slow\nmod tests {\n std::fs::read(p);",
        0,
    );
    complains(uses_of_the_system, "src/fs/disk.rs", "std::fs::read(path)", 0);

    complains(
        uses_upwards,
        "src/wal/queue.rs",
        "use crate::db::Db;\nuse crate::{model::Timestamp, head::Head};",
        2,
    );
    complains(uses_upwards, "src/wal/queue.rs", "use crate::chunk::Page;", 1);
    complains(
        uses_upwards,
        "src/wal/queue.rs",
        "use crate::wal::format;\nuse crate::error::Error;\nuse crate::fs::Fs;",
        0,
    );
    complains(uses_upwards, "src/mystery/mod.rs", "", 1);

    let marker = &stray_markers()[0];
    complains(markers, "src/lib.rs", &format!("fn later() {{ {marker}() }}"), 1);

    let page = "[here](tidy.rs) [gone](gone.md#part) [far](https://example.com/x)\n```\n[code](x)\n```\n";
    complains(broken_links, "tests/page.md", page, 1);

    let page = "| offset | size | meaning |\n|---|---|---|\n| 0 | 4 | magic `ABCD` |\n| 4 | 2 | version: 3 |\n| 6 | n | rest |\n";
    let layouts = layouts(page);
    assert_eq!(layouts, [Layout { magic: "ABCD".to_owned(), version: Some(3), size: Some(6) }]);
    let rule = |file: &File| undocumented(file, &layouts);
    let code = |magic: &str, version, size| {
        format!(
            "const A_MAGIC: [u8; 4] = *b\"{magic}\";\nconst A_VERSION: u16 = {version};\nconst A_HEADER_SIZE: usize = {size};"
        )
    };
    complains(rule, "src/a/format.rs", &code("ABCD", 3, 6), 0);
    complains(rule, "src/a/format.rs", &code("ABCD", 4, 7), 2);
    complains(rule, "src/a/format.rs", &code("WXYZ", 3, 6), 1);
}
