//! A fixture for each word that rules may use: operators, variables, transformations, actions, controls,
//! directives. What Debian's rules use and no fixture shows fails here.

use crate::{Memory, begin, crs, fields, source};
use bastide_waf::{RuleSet, Settings, Verdict};
use std::{collections::BTreeSet, sync::Arc};

/// Operator with its argument, a value that matches, and one that does not.
const OPERATORS: &[(&str, &str, &str)] = &[
    ("rx ^a+$", "aaa", "aab"),
    ("rxGlobal a{2}", "aa", "a"),
    ("pm one two", "xTWOx", "three"),
    ("pm a|62|c", "abc", "a|62|c"),
    ("pmf words.data", "evil", "good"),
    ("pmFromFile words.data", "a%20bad%20word", "words"),
    ("contains b", "abc", "ac"),
    ("strmatch b", "abc", "ac"),
    ("containsWord b", "a%20b", "abc"),
    ("streq abc", "abc", "ABC"),
    ("within |a|b|", "b", "c"),
    ("beginsWith ab", "abc", "cab"),
    ("endsWith bc", "abc", "bca"),
    ("eq 5", "5", "6"),
    ("ge 5", "5", "4"),
    ("gt 5", "6", "5"),
    ("le 4", "4", "5"),
    ("lt 5", "4", "5"),
    ("ipMatch 10.0.0.0/8,::1", "10.1.2.3", "11.1.2.3"),
    ("ipMatchF nets.data", "192.0.2.9", "192.0.3.9"),
    ("ipMatchFromFile nets.data", "2001:db8::1", "2001:db9::1"),
    ("validateByteRange 97-99", "abd", "abc"),
    ("validateUrlEncoding", "%25zz", "%2541"),
    ("validateUtf8Encoding", "%ff", "%c3%a4"),
    ("detectSQLi", "1'%20or%201=1--", "hello"),
    ("detectXSS", "<script>alert(1)</script>", "hello"),
];

/// Rules with an operator that always comes to the same.
const CONSTANT: &[(&str, bool)] =
    &[("unconditionalMatch", true), ("noMatch", false), ("rbl a.example", false), ("geoLookup", false)];

/// Variable, and a pattern that its value matches for the request of [`sent`].
const VARIABLES: &[(&str, &str)] = &[
    ("ARGS:post", "^p1$"),
    ("ARGS_NAMES", "^get$"),
    ("ARGS_GET", "^g 1$"),
    ("ARGS_GET_NAMES", "^get$"),
    ("ARGS_POST", "^p1$"),
    ("ARGS_POST_NAMES", "^post$"),
    ("ARGS_COMBINED_SIZE", "^12$"),
    ("REQUEST_COOKIES:a", "^1$"),
    ("REQUEST_COOKIES_NAMES", "^b$"),
    ("REQUEST_HEADERS:x-a", "^xa$"),
    ("REQUEST_HEADERS_NAMES", "^X-A$"),
    ("REQUEST_METHOD", "^POST$"),
    ("REQUEST_URI", "^/dir/f%20x\\.php\\?get=g\\+1$"),
    ("REQUEST_URI_RAW", "^http://h/dir/f%20x\\.php\\?get=g\\+1$"),
    ("REQUEST_LINE", "^POST http://h/dir/f%20x.php\\?get=g\\+1 HTTP/1.1$"),
    ("REQUEST_PROTOCOL", "^HTTP/1.1$"),
    ("REQUEST_FILENAME", "^/dir/f x.php$"),
    ("REQUEST_BASENAME", "^f x.php$"),
    ("QUERY_STRING", "^get=g\\+1$"),
    ("REQUEST_BODY", "^post=p1$"),
    ("REQUEST_BODY_LENGTH", "^7$"),
    ("REQBODY_PROCESSOR", "^URLENCODED$"),
    ("REQBODY_ERROR", "^0$"),
    ("REQBODY_PROCESSOR_ERROR", "^0$"),
    ("REMOTE_ADDR", "^127.0.0.1$"),
    ("REMOTE_PORT", "^4711$"),
    ("REMOTE_USER", "^ann$"),
    ("AUTH_TYPE", "^Basic$"),
    ("SERVER_ADDR", "^127.0.0.1$"),
    ("SERVER_PORT", "^4711$"),
    ("SERVER_NAME", "^h$"),
    ("UNIQUE_ID", "^id$"),
    ("DURATION", "^0$"),
    ("TIME", "^00:00:00$"),
    ("TIME_EPOCH", "^0$"),
    ("TIME_YEAR", "^1970$"),
    ("TIME_MON", "^0$"),
    ("TIME_DAY", "^1$"),
    ("TIME_HOUR", "^0$"),
    ("TIME_MIN", "^0$"),
    ("TIME_SEC", "^0$"),
    ("TIME_WDAY", "^4$"),
    ("TX:set", "^yes$"),
    ("TX:/^se/", "^yes$"),
    ("IP:seen", "^1$"),
    ("INBOUND_DATA_ERROR", "^0$"),
    ("OUTBOUND_DATA_ERROR", "^0$"),
    ("URLENCODED_ERROR", "^0$"),
    ("MULTIPART_STRICT_ERROR", "^0$"),
    ("MULTIPART_UNMATCHED_BOUNDARY", "^0$"),
    ("&ARGS", "^2$"),
    ("&FILES", "^0$"),
    ("FILES_COMBINED_SIZE", "^0$"),
];

/// The same for the multipart body of [`uploaded`].
const PARTS: &[(&str, &str)] = &[
    ("ARGS_POST:note", "^hi$"),
    ("FILES", "^a\\.txt$"),
    ("FILES_NAMES", "^upload$"),
    ("FILES_SIZES", "^5$"),
    ("FILES_COMBINED_SIZE", "^5$"),
    ("FILES_TMP_CONTENT", "^12345$"),
    ("MULTIPART_PART_HEADERS:upload", "^Content-Type: text/plain$"),
    ("REQBODY_PROCESSOR", "^MULTIPART$"),
];

/// The same for answers.
const ANSWERS: &[(&str, &str)] = &[
    ("RESPONSE_STATUS", "^500$"),
    ("RESPONSE_PROTOCOL", "^HTTP/1.1$"),
    ("RESPONSE_HEADERS:x-b", "^xb$"),
    ("RESPONSE_HEADERS_NAMES", "^X-B$"),
    ("RESPONSE_CONTENT_TYPE", "^text/html$"),
    ("RESPONSE_CONTENT_LENGTH", "^4$"),
    ("RESPONSE_BODY", "^page$"),
];

/// Transformation, a value as sent, and what a rule sees.
const TRANSFORMATIONS: &[(&str, &str, &str)] = &[
    ("none", "a%20B", "a B"),
    ("lowercase", "AbC", "abc"),
    ("uppercase", "AbC", "ABC"),
    ("urlDecode", "%2541", "A"),
    ("urlDecodeUni", "%25u0041", "A"),
    ("htmlEntityDecode", "%26lt;", "<"),
    ("jsDecode", "%5Cx41", "A"),
    ("cssDecode", "%5C41", "A"),
    ("escapeSeqDecode", "%5Cx41", "A"),
    ("utf8toUnicode", "%c3%a4", "%u00e4"),
    ("removeNulls", "a%00b", "ab"),
    ("replaceNulls", "a%00b", "a b"),
    ("removeWhitespace", "a%20b", "ab"),
    ("compressWhitespace", "a%20%20b", "a b"),
    ("trim", "%20a%20", "a"),
    ("trimLeft", "%20a%20", "a "),
    ("trimRight", "%20a%20", " a"),
    ("removeComments", "a/*x*/b", "ab"),
    ("replaceComments", "a/*x*/b", "a b"),
    ("removeCommentsChar", "a/*b", "ab"),
    ("normalizePath", "/a/../b", "/b"),
    ("normalisePath", "/a/./b", "/a/b"),
    ("normalizePathWin", "%5Ca%5C..%5Cb", "/b"),
    ("normalisePathWin", "%5Ca%5Cb", "/a/b"),
    ("cmdLine", "C%5Ed", "cd"),
    ("base64Decode", "aGk=", "hi"),
    ("base64DecodeExt", "aG.k", "hi"),
    ("base64Encode", "hi", "aGk="),
    ("hexEncode", "%01", "01"),
    ("hexDecode", "4142", "AB"),
    ("sha1,t:hexEncode", "abc", "a9993e364706816aba3e25717850c26c9cd0d89d"),
    ("length", "abc", "3"),
    ("urlEncode", "a%20b", "a+b"),
    ("sqlHexDecode", "0x4142", "AB"),
];

/// Rules of which the last refuses `/?a=x` because of what an action before it did.
const ACTIONS: &[(&str, &str)] = &[
    ("id", "SecRule ARGS x \"id:1,phase:1,deny\""),
    ("phase", "SecRule ARGS x \"id:1,phase:request,deny\""),
    ("status", "SecRule ARGS x \"id:1,phase:1,deny,status:401\""),
    ("deny", "SecRule ARGS x \"id:1,phase:1,deny\""),
    ("drop", "SecRule ARGS x \"id:1,phase:1,drop\""),
    ("block", "SecDefaultAction \"phase:1,deny\"\nSecRule ARGS x \"id:1,phase:1,block\""),
    ("pass", "SecRule ARGS x \"id:1,phase:1,pass\"\nSecAction \"id:2,phase:1,deny\""),
    (
        "allow",
        "SecRule ARGS x \"id:1,phase:1,allow:phase\"\nSecAction \"id:2,phase:1,pass\"\nSecAction \"id:3,phase:2,deny\"",
    ),
    ("chain", "SecRule ARGS x \"id:1,phase:1,deny,chain\"\nSecRule ARGS_NAMES a"),
    (
        "skip",
        "SecAction \"id:1,phase:1,pass,skip:1\"\nSecAction \"id:2,phase:1,allow\"\nSecAction \"id:3,phase:1,deny\"",
    ),
    (
        "skipAfter",
        "SecAction \"id:1,phase:1,pass,skipAfter:M\"\nSecAction \"id:2,phase:1,allow\"\nSecMarker M\nSecAction \"id:3,phase:1,deny\"",
    ),
    (
        "capture",
        "SecRule ARGS \"@rx (x)\" \"id:1,phase:1,pass,capture\"\nSecRule TX:1 x \"id:2,phase:1,deny\"",
    ),
    ("multiMatch", "SecRule ARGS \"@streq x\" \"id:1,phase:1,deny,multiMatch,t:uppercase\""),
    ("t", "SecRule ARGS \"@streq X\" \"id:1,phase:1,deny,t:uppercase\""),
    (
        "setvar",
        "SecAction \"id:1,phase:1,pass,setvar:tx.n=2,setvar:tx.n=+3,setvar:tx.n=-1,setvar:tx.gone=1,setvar:!tx.gone\"\nSecRule TX:n \"@eq 4\" \"id:2,phase:1,deny,chain\"\nSecRule &TX:gone \"@eq 0\"",
    ),
    (
        "initcol",
        "SecAction \"id:1,phase:1,pass,initcol:ip=%{REMOTE_ADDR},setvar:ip.n=1\"\nSecRule IP:n \"@eq 1\" \"id:2,phase:1,deny\"",
    ),
    ("expirevar", "SecAction \"id:1,phase:1,pass,expirevar:ip.n=60\"\nSecAction \"id:2,phase:1,deny\""),
    (
        "ctl",
        "SecAction \"id:1,phase:1,pass,ctl:ruleRemoveById=2\"\nSecAction \"id:2,phase:1,allow\"\nSecAction \"id:3,phase:1,deny\"",
    ),
];

/// Actions that say something of a rule and change no verdict.
const SAYING: &[&str] = &[
    "log",
    "nolog",
    "auditlog",
    "noauditlog",
    "msg",
    "logdata",
    "severity",
    "tag",
    "ver",
    "rev",
    "maturity",
    "accuracy",
];

/// Controls that come before a rule (10, tag `t`, message `m`) which would refuse `/?a=x`, and let it pass.
const CONTROLS: &[&str] = &[
    "ruleRemoveById=10",
    "ruleRemoveByTag=t",
    "ruleRemoveByMsg=m",
    "ruleRemoveTargetById=10;ARGS:a",
    "ruleRemoveTargetByTag=t;ARGS:a",
    "ruleRemoveTargetByMsg=m;ARGS:a",
    "ruleEngine=Off",
    "ruleEngine=DetectionOnly",
];

/// Controls that are shown by what becomes of a body (see below), or change nothing that rules see.
const OTHER_CONTROLS: &[&str] = &[
    "requestBodyProcessor=JSON",
    "forceRequestBodyVariable=On",
    "requestBodyAccess=Off",
    "responseBodyAccess=Off",
    "auditEngine=Off",
    "auditLogParts=+E",
];

/// Directives; `SecRule`, `SecAction` and the others of [`ACTIONS`] aside.
const DIRECTIVES: &[(&str, bool)] = &[
    ("SecRuleRemoveById 10", false),
    ("SecRuleRemoveByTag t", false),
    ("SecRuleRemoveByMsg m", false),
    ("SecRuleUpdateTargetById 10 \"!ARGS:a\"", false),
    ("SecRuleUpdateTargetByTag t \"!ARGS:a\"", false),
    ("SecRuleUpdateTargetByMsg m \"!ARGS:a\"", false),
    ("SecRuleUpdateActionById 10 \"pass\"", false),
    ("Include more.conf", false),
    ("IncludeOptional no-such.conf", true),
    ("SecArgumentSeparator ;", true),
    ("SecArgumentsLimit 5", true),
    ("SecCookieFormat 0", true),
    ("SecRequestBodyJsonDepthLimit 5", true),
    ("SecResponseBodyMimeType text/html", true),
    ("SecComponentSignature \"x\"", true),
    ("SecCollectionTimeout 600", true),
    ("SecRuleEngine Off", true),
];

fn load(text: &str) -> Arc<RuleSet> {
    let files = Memory(vec![
        ("words.data", "# words\nevil\nbad word\n"),
        ("nets.data", "# nets\n192.0.2.0/24\n2001:db8::/32 # v6\n"),
        ("more.conf", "SecRuleRemoveById 10\n"),
    ]);
    match RuleSet::compile(&[source(text)], &files, &Settings::default()) {
        Ok(set) => Arc::new(set),
        Err(error) => panic!("{text}\n{error}"),
    }
}

fn refused(rules: &str, target: &str) -> bool {
    crate::get(&load(rules), target, &[]).0 != Verdict::Pass
}

#[test]
fn each_operator_tells_values_apart() {
    for (operator, yes, no) in OPERATORS {
        for (negated, first, second) in [("", yes, no), ("!", no, yes)] {
            let rule = format!("SecRule ARGS \"{negated}@{operator}\" \"id:1,phase:1,deny,t:none\"");
            assert!(refused(&rule, &format!("/?a={first}")), "{rule} {first}");
            assert!(!refused(&rule, &format!("/?a={second}")), "{rule} {second}");
        }
    }
    for (operator, matches) in CONSTANT {
        assert_eq!(
            refused(&format!("SecRule ARGS \"@{operator}\" \"id:1,phase:1,deny\""), "/?a=x"),
            *matches
        );
    }
}

/// The verdict on a form with all that [`VARIABLES`] name, and its answer.
fn sent(set: &Arc<RuleSet>) -> bool {
    let headers = [
        ("Host", "h:8443"),
        ("Cookie", "a=1; b=2"),
        ("X-A", "xa"),
        ("Authorization", "Basic YW5uOnNlY3JldA=="),
        ("Content-Type", "application/x-www-form-urlencoded"),
    ];
    let mut transaction = begin(set);
    let target = b"http://h/dir/f%20x.php?get=g+1";
    let head = transaction.request_head(b"POST", target, b"HTTP/1.1", fields(&headers));
    let body = transaction.request_body(b"post=p1", true);
    let answer = [("Content-Type", "text/html"), ("Content-Length", "4"), ("X-B", "xb")];
    let answered = transaction.response_head(500, b"HTTP/1.1", fields(&answer));
    let page = transaction.response_body(b"page", true);
    [head, body, answered, page].iter().any(|verdict| *verdict != Verdict::Pass)
}

fn uploaded(set: &Arc<RuleSet>) -> bool {
    let body = "--m\r\nContent-Disposition: form-data; name=\"note\"\r\n\r\nhi\r\n--m\r\n\
        Content-Disposition: form-data; name=\"upload\"; filename=\"a.txt\"\r\nContent-Type: text/plain\r\n\r\n12345\r\n--m--\r\n";
    let headers = [("Content-Type", "multipart/form-data; boundary=m")];
    crate::run(set, "POST", "/", &headers, body.as_bytes()).0 != Verdict::Pass
}

#[test]
fn each_variable_holds_what_its_name_says() {
    let before = "SecAction \"id:1,phase:1,nolog,pass,setvar:tx.set=yes,setvar:ip.seen=1\"";
    let rule = |phase: u8, variable: &str, pattern: &str| {
        load(&format!("{before}\nSecRule {variable} \"@rx {pattern}\" \"id:2,phase:{phase},deny\""))
    };
    for (variable, pattern) in VARIABLES {
        assert!(sent(&rule(2, variable, pattern)), "{variable}");
        assert!(!sent(&rule(2, variable, "^no such value$")), "{variable}");
    }
    for (variable, pattern) in PARTS {
        assert!(uploaded(&rule(2, variable, pattern)), "{variable}");
    }
    for (variable, pattern) in ANSWERS {
        assert!(sent(&rule(4, variable, pattern)), "{variable}");
    }
    for matched in [
        "MATCHED_VAR \"@streq xa\"",
        "MATCHED_VARS \"@streq xa\"",
        "MATCHED_VAR_NAME \"@contains X-A\"",
        "MATCHED_VARS_NAMES \"@contains X-A\"",
    ] {
        let rules =
            format!("SecRule REQUEST_HEADERS \"@streq xa\" \"id:1,phase:2,deny,chain\"\nSecRule {matched}");
        assert!(sent(&load(&rules)), "{matched}");
    }
    for (variable, text) in [("XML:/*", "words"), ("XML://@*", "attr")] {
        let set = load(&format!("SecRule {variable} \"@streq {text}\" \"id:1,phase:2,deny\""));
        let headers = [("Content-Type", "text/xml")];
        assert_ne!(
            crate::run(&set, "POST", "/", &headers, b"<a b='attr'>words</a>").0,
            Verdict::Pass,
            "{variable}"
        );
    }
}

#[test]
fn each_transformation_is_applied() {
    for (name, value, expected) in TRANSFORMATIONS {
        let rule = |expected: &str| format!("SecRule ARGS \"@rx {expected}\" \"id:1,phase:1,deny,t:{name}\"");
        // White space at an operator's end would be lost.
        let expected = format!("^{}$", expected.replace(' ', "\\x20").replace('+', "\\x2b"));
        assert!(refused(&rule(&expected), &format!("/?a={value}")), "{name}");
        assert!(!refused(&rule("something else"), &format!("/?a={value}")), "{name}");
    }
}

#[test]
fn each_action_has_its_effect() {
    for (action, rules) in ACTIONS {
        assert!(refused(rules, "/?a=x"), "{action}");
    }
    for action in SAYING {
        let argument = if action.ends_with("log") { String::new() } else { format!(":'{action}'") };
        assert!(
            refused(&format!("SecRule ARGS x \"id:1,phase:1,deny,{action}{argument}\""), "/?a=x"),
            "{action}"
        );
    }
}

#[test]
fn each_control_changes_the_rest_of_a_transaction() {
    let rule = "SecRule ARGS:a x \"id:10,phase:1,deny,tag:'t',msg:'m'\"";
    assert!(refused(rule, "/?a=x"));
    for control in CONTROLS {
        let rules = format!("SecAction \"id:1,phase:1,nolog,pass,ctl:{control}\"\n{rule}");
        assert!(!refused(&rules, "/?a=x"), "{control}");
    }
    let post = |control: &str, rule: &str, kind: &str, body: &[u8]| {
        let set = load(&format!(
            "SecAction \"id:1,phase:1,nolog,pass,ctl:{control}\"\nSecRule {rule} \"id:10,phase:2,deny\""
        ));
        crate::run(&set, "POST", "/", &[("Content-Type", kind)], body).0 != Verdict::Pass
    };
    assert!(post("requestBodyProcessor=JSON", "ARGS:json.a x", "text/plain", br#"{"a":"x"}"#));
    assert!(post(
        "forceRequestBodyVariable=On",
        "REQUEST_BODY \"@contains x\"",
        "application/json",
        br#"{"a":"x"}"#
    ));
    assert!(!post("requestBodyAccess=Off", "ARGS:a x", "application/x-www-form-urlencoded", b"a=x"));
    assert!(post("auditLogParts=+E", "ARGS:a x", "application/x-www-form-urlencoded", b"a=x"));
    let set = load("SecAction \"id:1,phase:1,pass,ctl:responseBodyAccess=Off,ctl:auditEngine=Off\"");
    let mut transaction = begin(&set);
    transaction.request_head(b"GET", b"/", b"HTTP/1.1", fields(&[]));
    assert!(!transaction.wants_response_body(b"text/html") && !transaction.finish().wanted);
}

#[test]
fn each_directive_is_obeyed() {
    let rule = "SecRule ARGS:a x \"id:10,phase:1,deny,tag:'t',msg:'m'\"\nSecAction \"id:11,phase:1,pass\"";
    for (directive, stays) in DIRECTIVES {
        for rules in [format!("{rule}\n{directive}"), format!("{directive}\n{rule}")] {
            assert_eq!(refused(&rules, "/?a=x"), *stays, "{rules}");
        }
    }
    assert!(refused(&format!("SecArgumentSeparator ;\n{rule}"), "/?b=1;a=x"));
    let limited = load("SecArgumentsLimit 1\nSecAction \"id:1,phase:1,pass\"");
    assert_ne!(crate::get(&limited, "/?a=1&b=2", &[]).0, Verdict::Pass);
    let flat = load("SecRequestBodyJsonDepthLimit 1\nSecAction \"id:1,phase:1,pass\"");
    let json = [("Content-Type", "application/json")];
    assert_ne!(crate::run(&flat, "POST", "/", &json, br#"{"a":{"b":{"c":1}}}"#).0, Verdict::Pass);
    let typed = load("SecResponseBodyMimeType text/css\nSecAction \"id:1,phase:1,pass\"");
    let transaction = begin(&typed);
    assert!(transaction.wants_response_body(b"text/css") && !transaction.wants_response_body(b"text/html"));
}

#[test]
fn what_debians_rules_use_has_its_fixture() {
    let text = crs::text();
    let check = |used: BTreeSet<String>, shown: &mut dyn Iterator<Item = &'static str>| {
        let shown: BTreeSet<String> = shown.map(first_word).collect();
        assert!(used.len() > 3);
        assert_eq!(used.difference(&shown).collect::<Vec<_>>(), [""; 0]);
    };
    let operators = OPERATORS.iter().map(|row| row.0).chain(CONSTANT.iter().map(|row| row.0));
    check(after(&text, &["\"@", "\"!@"]), &mut { operators });
    check(after(&text, &["ctl:"]), &mut CONTROLS.iter().chain(OTHER_CONTROLS).copied());
    check(after(&text, &[",t:", " t:", "\"t:"]), &mut TRANSFORMATIONS.iter().map(|row| row.0));
    let variables = VARIABLES.iter().chain(PARTS).chain(ANSWERS).map(|row| row.0.trim_start_matches('&'));
    // Shown by rules of their own, or always empty.
    let others = ["MATCHED_VAR", "MATCHED_VARS", "MATCHED_VAR_NAME", "MATCHED_VARS_NAMES", "XML", "GEO"];
    check(targets(&text), &mut variables.chain(others));
}

/// Names of variables that rules look at.
fn targets(text: &str) -> BTreeSet<String> {
    let rules = text.lines().filter_map(|line| line.trim_start().strip_prefix("SecRule "));
    let lists = rules.filter_map(|rule| rule.trim_start().split([' ', '"']).next());
    lists.flat_map(|list| list.split('|')).map(|one| first_word(one.trim_start_matches(['!', '&']))).collect()
}

fn first_word(text: &str) -> String {
    let word = text.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_');
    word.collect::<String>().to_ascii_lowercase()
}

/// Words that follow one of these.
fn after(text: &str, marks: &[&str]) -> BTreeSet<String> {
    let words = marks.iter().flat_map(|mark| text.split(mark).skip(1)).map(first_word);
    words.filter(|word| !word.is_empty()).collect()
}
