//! The language by example, its errors, its bounds, and what holds for any text.

use std::{borrow::Cow, collections::BTreeMap};

use proptest::prelude::*;

use super::*;

/// Variables written `Name=value; Other=value`; a value that starts with `!` is secret.
struct Names(BTreeMap<String, String>);

impl Names {
    fn parse(text: &str) -> Self {
        let pairs = text.split(';').filter_map(|pair| pair.split_once('='));
        Self(pairs.map(|(name, value)| (name.trim().to_lowercase(), value.to_owned())).collect())
    }
}

impl Lookup for Names {
    fn get(&self, path: &str) -> Result<Option<Found<'_>>, LookupError> {
        Ok(self.0.get(&path.to_lowercase()).map(|value| {
            let secret = value.strip_prefix('!');
            Found { text: Cow::Borrowed(secret.unwrap_or(value)), secret: secret.is_some(), literal: secret.is_some() }
        }))
    }
    fn keys(&self, prefix: &str) -> Vec<String> {
        let open = format!("{}[", prefix.to_lowercase());
        let mut keys: Vec<String> = self
            .0
            .keys()
            .filter(|name| name.starts_with(&open))
            .filter_map(|name| crate::variables::key_after(name, open.len()))
            .map(str::to_owned)
            .collect();
        keys.dedup();
        keys
    }
    fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }
}

fn expand(template: &str, names: &str, mode: Mode) -> Result<Expanded, TemplateError> {
    Template::parse(template).expand(&Names::parse(names), mode)
}

#[test]
fn expressions() {
    for (template, names, expected) in [
        ("#{Foo}", "Foo=Bar", "Bar"),
        ("#{Foo}", "foo=Bar", "Bar"),
        ("#{ Foo }", "Foo=Bar", "Bar"),
        ("a#{Foo}b#{Foo}", "Foo=1", "a1b1"),
        ("#{Foo}", "Foo=#{Bar}; Bar=Baz", "Baz"),
        ("#{Foo Bar Jazz}", "Foo Bar Jazz=Bar", "Bar"),
        ("#{a/b}#{a~b}#{(abc)}", "a/b=1; a~b=2; (abc)=3", "123"),
        ("#{Foo}", "Foo=#{Bar | ToLower}; Bar=BAZ", "baz"),
        ("#{Foo|ToUpper}", "Foo=baz", "BAZ"),
        ("#{Foo | ToUpper | ToLower}", "Foo=bAz", "baz"),
        ("#{Octopus.Action[Package A].Name}", "Octopus.Action[Package A].Name=A", "A"),
        ("#{Step[#{Which}].Code}", "Which=One; Step[One].Code=7", "7"),
        ("#{X[a[0].b].c}", "X[a[0].b].c=deep", "deep"),
        ("#{Json.a.b[1].c}", r#"Json={"a":{"b":[1,{"c":"x"}]}}"#, "x"),
        ("#{Json[a]}#{Json.n}#{Json.t}", r#"Json={"a":"x","n":null,"t":true}"#, "xtrue"),
        ("#{Json[0].name}", r#"Json=[{"name":"x"}]"#, "x"),
        ("#{Json.a}", r#"Json={"a":[1,2]}"#, "[1,2]"),
        ("#{Empty}", "Empty=", ""),
        // Escapes, and the number signs that are none.
        ("##{Foo}", "Foo=Bar", "#{Foo}"),
        ("###{Foo}", "Foo=Bar", "#Bar"),
        ("####{Foo}", "Foo=Bar", "###{Foo}"),
        ("#####{Foo}", "Foo=Bar", "###Bar"),
        ("# ## ### #a ##b", "", "# ## ### #a ##b"),
        ("#", "", "#"),
    ] {
        let expanded = expand(template, names, Mode::Strict).map(|e| e.text);
        assert_eq!(expanded.as_deref(), Ok(expected), "{template}");
    }
}

#[test]
fn conditions() {
    for (template, names, expected) in [
        ("#{if T}yes#{/if}", "T=true", "yes"),
        ("#{ if T }yes#{/if}", "T=1", "yes"),
        ("#{if T}yes#{/if}", "T=False", ""),
        ("#{if T}yes#{/if}", "T=0", ""),
        ("#{if T}yes#{/if}", "T=No", ""),
        ("#{if T}yes#{/if}", "T=", ""),
        ("#{if Missing}yes#{else}no#{/if}", "", "no"),
        ("#{unless Missing}yes#{else}no#{/unless}", "", "yes"),
        ("#{if A == \"b\"}yes#{else}no#{/if}", "A=b", "yes"),
        ("#{if A==\"b\"}yes#{else}no#{/if}", "A=B", "no"),
        ("#{if A != \"b\"}yes#{/if}", "A=c", "yes"),
        ("#{if A == B}yes#{/if}", "A=c; B=c", "yes"),
        ("#{if A == \\\"b\\\"}yes#{/if}", "A=b", "yes"),
        ("#{if A | Contains \"x\"}yes#{/if}", "A=axb", "yes"),
        ("#{if A}1#{if B}2#{else}3#{/if}4#{/if}", "A=1", "134"),
        ("#{if A}1#{else}#{if B}2#{/if}#{/if}", "B=1", "2"),
        ("#{IF A}1#{ELSE}2#{/IF}", "A=1", "1"),
        ("#{if}#{else}", "if=a; else=b", "unparsed"),
    ] {
        let expanded = expand(template, names, Mode::Strict).map(|e| e.text);
        if expected == "unparsed" {
            assert!(expanded.is_err(), "{template}");
        } else {
            assert_eq!(expanded.as_deref(), Ok(expected), "{template}");
        }
    }
}

#[test]
fn loops() {
    for (template, names, expected) in [
        ("#{each a in L}#{a},#{/each}", "L=x, y", "x,y,"),
        ("#{each a in Missing}#{a}#{/each}", "", ""),
        ("#{each a in L}#{a}#{/each}", "L=[1,\"b\"]", "1b"),
        ("#{each a in L}#{a.Key}=#{a.Value} #{/each}", r#"L={"k":"v","m":2}"#, "k=v m=2 "),
        ("#{each a in L}#{a.n}#{/each}", r#"L=[{"n":"x"},{"n":"y"}]"#, "xy"),
        ("#{each a in A}#{a}:#{a.N} #{/each}", "A[p].N=1; A[q].N=2", "p:1 q:2 "),
        ("#{each a in S}#{a.Key}#{a}#{/each}", "S[a]=5; S[b]=7", "a5b7"),
        (
            "#{each a in A}#{each t in a.T}#{a.N}#{t} #{/each}#{/each}",
            "A[x].N=1; A[x].T=a,b; A[y].N=2; A[y].T=c",
            "1a 1b 2c ",
        ),
        ("#{each a in L}#{Octopus.Template.Each.Index}#{if Octopus.Template.Each.Last}!#{/if}#{/each}", "L=a,b", "01!"),
        ("#{each a in A}#{S[#{a.S}].D}#{/each}", "A[1].S=x; S[x].D=ok", "ok"),
    ] {
        let expanded = expand(template, names, Mode::Strict).map(|e| e.text);
        assert_eq!(expanded.as_deref(), Ok(expected), "{template}");
    }
}

#[test]
fn every_filter() {
    let cases = [
        ("ToLower", "ÄB", "äb"),
        ("ToUpper", "äb", "ÄB"),
        ("Trim", "  a ", "a"),
        ("Trim start", "  a ", "a "),
        ("Trim end", "  a ", "  a"),
        ("ToBase64", "a b", "YSBi"),
        ("FromBase64", "YSBi", "a b"),
        ("HtmlEscape", "<a href='/'>", "&lt;a href=&apos;&#x2F;&apos;&gt;"),
        ("XmlEscape", "<a & \"b\">", "&lt;a &amp; &quot;b&quot;&gt;"),
        ("JsonEscape", "a\"\\\n", "a\\\"\\\\\\n"),
        ("YamlSingleQuoteEscape", "it's\nb", "it''s\n\nb"),
        ("YamlSingleQuoteEscape", "a\r\n\r\nb", "a\r\n\r\n\r\nb"),
        ("YamlDoubleQuoteEscape", "a\"\té", "a\\\"\\t\\u00e9"),
        ("UriEscape", "a b/c?d", "a%20b/c?d"),
        ("UriDataEscape", "a b/c?d", "a%20b%2Fc%3Fd"),
        ("Replace \"b+\" \"x\"", "abba", "axa"),
        ("Replace \"(a)(b)\" \"$2_$1\"", "ab", "b_a"),
        ("Replace b", "abba", "aa"),
        ("Substring 2", "abcd", "ab"),
        ("Substring 1 2", "abcd", "bc"),
        ("Truncate 2", "abcd", "ab..."),
        ("Truncate 4", "abcd", "abcd"),
        ("StartsWith ab", "abcd", "true"),
        ("EndsWith \"ab\"", "abcd", "false"),
        ("Contains bc", "abcd", "true"),
        ("Sha256", "a", "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"),
        ("Append \"-\" #{Y}", "x", "x-why"),
        ("Prepend #{Y | ToUpper}", "x", "WHYx"),
        ("VersionMajor", "v1.2.3-rc.1", "1"),
        ("VersionMinor", "1.2.3+b", "2"),
        ("versionpatch", "1.2.3-rc.1", "3"),
    ];
    for (filter, value, expected) in cases {
        let names = Names(BTreeMap::from([("x".into(), value.into()), ("y".into(), "why".into())]));
        let template = format!("#{{X | {filter}}}");
        let expanded = Template::parse(&template).expand(&names, Mode::Strict);
        assert_eq!(expanded.map(|e| e.text).as_deref(), Ok(expected), "{filter}");
    }
    for name in FILTERS {
        let tried = cases.iter().any(|(filter, ..)| filter.split(' ').next().unwrap().eq_ignore_ascii_case(name));
        assert!(tried, "{name} has no example");
    }
}

#[test]
fn what_cannot_be_resolved_is_an_error_or_stays() {
    for (template, names, left) in [
        ("#{foo}", "", "#{foo}"),
        ("#{Foo}#{Jazz}", "Foo=#{Bar}; Bar=Baz", "Baz#{Jazz}"),
        ("#{foo | ToUpper}", "", "#{foo | ToUpper}"),
        ("#{Foo | ToBazooka}", "Foo=Abc", "#{Foo | ToBazooka}"),
        ("#{Foo | FromBase64}", "Foo=!!", "#{Foo | FromBase64}"),
        ("#{each a in A}#{a.Size}#{/each}", "A[x].N=1; A[y].N=1", "#{a.Size}#{a.Size}"),
        ("#{Foo", "Foo=Bar", "#{Foo"),
        ("#{Fo[o}", "Fo[o]=Bar", "#{Fo[o}"),
        ("#{}#{ }", "", "#{}#{ }"),
        ("#{each a in A}#{B}", "A=1; B=2", "#{each a in A}2"),
        ("#{if A}#{B}#{else}x", "A=1; B=2", "#{if A}2#{else}x"),
        ("#{/if}#{else}#{B}", "B=2", "#{/if}#{else}2"),
        ("a=\"#{\"===e;b=\"#{B}\"", "B=2", "a=\"#{\"===e;b=\"2\""),
        ("#{A} #{", "A=1", "1 #{"),
    ] {
        assert!(expand(template, names, Mode::Strict).is_err(), "{template}");
        let expanded = expand(template, names, Mode::Leave).unwrap();
        assert_eq!(expanded.text, left, "{template}");
        assert!(!expanded.unresolved.is_empty(), "{template}");
    }
}

#[test]
fn errors_say_what_and_where() {
    let cases = [
        ("a\nb #{Databse.Url}", "Database.Url=x"),
        ("#{A}", "A=x #{B}; B=#{Missing}"),
        ("#{A | ToUper}", "A=x"),
        ("#{A | Substring x}", "A=x"),
        ("#{A | Substring 3}", "A=x"),
        ("#{A | Truncate}", "A=x"),
        ("#{A | Replace \"(\"}", "A=x"),
        ("#{A.}", "A=x"),
        ("#{A | }", "A=x"),
        ("#{A == \"x\"}", "A=x"),
        ("#{each A}#{/each}", "A=x"),
        ("#{if A == \"x}#{/if}", "A=x"),
        ("#{if A}x", "A=x"),
        ("#{if A}#{/each}", "A=x"),
        ("#{A", "A=x"),
        ("#{A[#{B]}", "A=x"),
        ("#{A}", "A=#{B}; B=#{C}; C=#{a}"),
    ];
    let said: Vec<String> =
        cases.iter().map(|(template, names)| expand(template, names, Mode::Strict).unwrap_err().to_string()).collect();
    insta::assert_snapshot!(said.join("\n"));
}

#[test]
fn secrets_taint_whatever_they_decide() {
    for (template, tainted) in [
        ("#{P}", true),
        ("#{A}", false),
        ("#{U}", true),
        ("#{P | Sha256}", true),
        ("#{A | Append #{P}}", true),
        ("#{if P == \"x\"}a#{/if}", true),
        ("#{if A}a#{else}#{P}#{/if}", false),
    ] {
        let expanded = expand(template, "P=!hush; A=1; U=x#{P}", Mode::Strict).unwrap();
        assert_eq!(expanded.secrets_used, tainted, "{template}");
        assert!(!format!("{expanded:?}").contains("hush"), "{template}");
    }
    let literal = expand("#{P}", "P=!a#{b}", Mode::Strict).unwrap();
    assert_eq!(literal.text, "a#{b}");
}

#[test]
fn every_bound_holds() {
    // Each value doubles the one before: two to the power of the chain.
    let bomb = |leaf: &str, length: usize| {
        let mut names: Vec<String> = (0..length).map(|i| format!("v{i}=#{{v{0}}}#{{v{0}}}", i + 1)).collect();
        names.push(format!("v{length}={leaf}"));
        names.join("; ")
    };
    for (names, limit) in [
        (bomb(&"x".repeat(1024), 15), "makes the text larger than 16 MiB"),
        (bomb("", 30), "takes too many steps to expand"),
        (bomb("x", 40), "is too many variables deep"),
    ] {
        let error = expand("#{v0}", &names, Mode::Leave).unwrap_err();
        assert_eq!(error.problem, Problem::Limit(limit));
    }
    let deep = "#{if A}".repeat(100) + &"#{/if}".repeat(100);
    assert!(expand(&deep, "A=1", Mode::Strict).is_err());
    assert!(expand(&deep, "A=1", Mode::Leave).is_ok());
    let nested = "#{a[".repeat(100_000);
    assert_eq!(expand(&nested, "", Mode::Leave).unwrap().text, nested);
}

#[test]
fn constant_paths_are_listed_before_there_are_values() {
    let template =
        Template::parse("#{A} #{if B}#{C.d}#{/if}#{each x in L}#{x.y}#{M[#{N}]}#{/each}#{D | Append #{E}}#{K[a b].c}");
    let paths: Vec<String> = template.paths().into_iter().map(|(_, path)| path).collect();
    assert_eq!(paths, ["A", "C.d", "N", "D", "E", "K[a b].c"]);
}

proptest! {
    #[test]
    fn any_text_parses_and_expands_or_fails(text in "(#\\{|\\}|\\[|\\]|if |each |in |/if|/each|else|\\||\"|\\\\|A|\\.| |.){0,60}") {
        let _ = expand(&text, "A=1", Mode::Strict);
        let _ = expand(&text, "A=1", Mode::Leave);
        let _ = Template::parse(&text).paths();
    }

    #[test]
    fn a_text_without_a_number_sign_is_itself(text in "[^#]*") {
        let expanded = expand(&text, "", Mode::Strict).unwrap();
        prop_assert_eq!(expanded.text, text);
    }

    #[test]
    fn without_variables_what_is_not_escaped_stays(text in "(#\\{|\\}|A|B\\.c| |[a-z\"\\[\\]|.]){0,40}") {
        prop_assume!(!text.contains("##") && !text.contains("if") && !text.contains("each"));
        let expanded = expand(&text, "", Mode::Leave).unwrap();
        prop_assert_eq!(expanded.text, text);
    }

    #[test]
    fn escaping_for_json_gives_back_the_text(text in any::<String>()) {
        let names = Names(BTreeMap::from([("x".into(), format!("!{text}"))]));
        let quoted = Template::parse("\"#{X | JsonEscape}\"").expand(&names, Mode::Strict).unwrap();
        prop_assert_eq!(serde_json::from_str::<String>(&quoted.text).unwrap(), text);
    }
}
