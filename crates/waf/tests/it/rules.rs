//! One small rule for each thing that rules can say.

use crate::{Memory, begin, fields, get, load, run, source};
use bastide_waf::{Exclusion, Mode, RuleSet, Settings, Verdict};
use std::sync::Arc;

/// Whether a request is refused by these rules.
fn check(rules: &str, target: &str, headers: &[(&str, &str)], expected: bool) {
    let set = load(rules);
    let (verdict, ids) = get(&set, target, headers);
    assert_eq!(verdict != Verdict::Pass, expected, "{rules}\n{target} {headers:?} {ids:?}");
}

#[test]
fn operators_decide() {
    let rule = |operator: &str| format!("SecRule ARGS:a \"{operator}\" \"id:1,phase:1,deny\"");
    for (operator, value, expected) in [
        ("@rx ^a+$", "aaa", true),
        ("!@rx ^a+$", "aab", true),
        ("@pm one two", "xTWOx", true),
        ("@pmFromFile words.data", "a%20bad%20word", true),
        ("@contains b", "abc", true),
        ("@containsWord b", "abc", false),
        ("@containsWord b", "a%20b", true),
        ("@streq abc", "abc", true),
        ("@within |a|b|", "b", true),
        ("@within |a|b|", "c", false),
        ("@beginsWith ab", "abc", true),
        ("@endsWith bc", "abc", true),
        ("@eq 5", "5", true),
        ("@gt 5", "6", true),
        ("@lt 5", "5", false),
        ("@ge 5", "5", true),
        ("@le 4", "5", false),
        ("@validateByteRange 97-99", "abc", false),
        ("@validateByteRange 97-99", "abd", true),
        ("@validateUtf8Encoding", "%ff", true),
        ("@detectSQLi", "1'%20or%201=1--", true),
        ("@detectSQLi", "hello", false),
        ("@detectXSS", "<script>alert(1)</script>", true),
        ("@unconditionalMatch", "x", true),
        ("@noMatch", "x", false),
    ] {
        check(&rule(operator), &format!("/?a={value}"), &[], expected);
    }
    check("SecRule REMOTE_ADDR \"@ipMatch 10.0.0.0/8,127.0.0.0/8\" \"id:1,phase:1,deny\"", "/", &[], true);
    check("SecRule REQUEST_URI_RAW \"@validateUrlEncoding\" \"id:1,phase:1,deny\"", "/?a=%zz", &[], true);
}

#[test]
fn variables_hold_what_their_names_say() {
    let rule =
        |variable: &str, pattern: &str| format!("SecRule {variable} \"@rx {pattern}\" \"id:1,phase:1,deny\"");
    let headers = [("Host", "h"), ("Cookie", "c=1; d=2"), ("X-A", "b")];
    for (variable, pattern) in [
        ("REQUEST_METHOD", "^GET$"),
        ("REQUEST_URI", "^/dir/file%20x.php\\?a=1&b=2$"),
        ("REQUEST_FILENAME", "^/dir/file x.php$"),
        ("REQUEST_BASENAME", "^file x.php$"),
        ("REQUEST_LINE", "^GET /dir/file%20x.php\\?a=1&b=2 HTTP/1.1$"),
        ("REQUEST_PROTOCOL", "^HTTP/1.1$"),
        ("QUERY_STRING", "^a=1&b=2$"),
        ("ARGS_NAMES", "^b$"),
        ("ARGS_GET:b", "^2$"),
        ("REQUEST_COOKIES:d", "^2$"),
        ("REQUEST_COOKIES_NAMES", "^c$"),
        ("REQUEST_HEADERS:x-a", "^b$"),
        ("REQUEST_HEADERS_NAMES", "^X-A$"),
        ("ARGS_COMBINED_SIZE", "^4$"),
        ("&ARGS", "^2$"),
        ("ARGS:/^[b]$/", "^2$"),
        ("UNIQUE_ID", "^id$"),
        ("SERVER_NAME", "^h$"),
        ("REMOTE_ADDR", "^127.0.0.1$"),
        ("TIME_EPOCH", "^0$"),
        ("TIME", "^00:00:00$"),
        ("URLENCODED_ERROR", "^0$"),
        ("MULTIPART_STRICT_ERROR", "^0$"),
    ] {
        check(&rule(variable, pattern), "/dir/file%20x.php?a=1&b=2", &headers, true);
    }
    check(&rule("ARGS|!ARGS:a", "^1$"), "/?a=1", &[], false);
}

#[test]
fn scores_chains_markers_and_macros_work_together() {
    let rules = r#"
        SecDefaultAction "phase:1,log,pass"
        SecAction "id:1,phase:1,nolog,pass,setvar:tx.critical=5,setvar:tx.limit=10"
        SecRule ARGS "@rx evil" "id:2,phase:1,block,capture,msg:'found %{TX.0}',logdata:'%{MATCHED_VAR_NAME}=%{MATCHED_VAR}',severity:CRITICAL,setvar:'tx.score=+%{tx.critical}'"
        SecRule ARGS:skip "@eq 1" "id:3,phase:1,pass,nolog,skipAfter:END"
        SecRule REQUEST_METHOD "@streq GET" "id:4,phase:1,deny,status:418,chain"
            SecRule TX:score "@ge %{tx.limit}"
        SecMarker END
    "#;
    let set = load(rules);
    assert_eq!(get(&set, "/?a=evil", &[]), (Verdict::Pass, vec![2]));
    let (verdict, _) = get(&set, "/?a=evil&b=evil", &[]);
    assert_eq!(verdict, Verdict::Block { status: 418, rule: 4 }, "each matching value scores");
    assert_eq!(get(&set, "/?a=evil&b=evil&skip=1", &[]).0, Verdict::Pass);
    let mut transaction = begin(&set);
    transaction.request_head(b"GET", b"/?x=evil1", b"HTTP/1.1", fields(&[]));
    let found = &transaction.matched()[0];
    assert_eq!((found.msg.as_str(), found.logdata.as_str(), found.line), ("found evil", "ARGS:x=evil1", 4));
}

#[test]
fn controls_change_the_rest_of_the_transaction() {
    let rule = |ctl: &str| {
        format!(
            "SecAction \"id:1,phase:1,nolog,pass,ctl:{ctl}\"\nSecRule ARGS \"@rx x\" \"id:20,phase:1,deny,tag:'t'\""
        )
    };
    for ctl in [
        "ruleRemoveById=20",
        "ruleRemoveById=10-30",
        "ruleRemoveByTag=t",
        "ruleRemoveTargetById=20;ARGS:a",
        "ruleRemoveTargetByTag=t;ARGS",
        "ruleEngine=Off",
        "ruleEngine=DetectionOnly",
    ] {
        check(&rule(ctl), "/?a=x", &[], false);
    }
    check(&rule("ruleRemoveTargetById=20;ARGS:b"), "/?a=x", &[], true);
    check("SecAction \"id:1,phase:1,allow\"\nSecAction \"id:2,phase:1,deny\"", "/", &[], false);
}

#[test]
fn exclusions_that_users_write_are_obeyed() {
    let base = "SecRule ARGS \"@rx x\" \"id:20,phase:1,deny,tag:'attack/x',msg:'a message'\"\n";
    for exclusion in [
        "SecRuleRemoveById 20",
        "SecRuleRemoveById 1-30",
        "SecRuleRemoveByTag \"^attack/\"",
        "SecRuleUpdateTargetById 20 \"!ARGS:a\"",
        "SecRuleUpdateTargetByTag attack \"!ARGS:/^a/\"",
        "SecRuleRemoveByMsg \"^a message$\"",
        "SecRuleUpdateTargetByMsg message \"!ARGS:b,!ARGS:a\"",
        "SecRuleUpdateActionById 20 \"pass,t:none\"",
        "SecRuleUpdateActionById 20 \"t:none,t:length\"",
    ] {
        let files = Memory(vec![]);
        let text = format!("{base}SecAction \"id:99,phase:1,pass,nolog\"\n{exclusion}\n");
        let set = Arc::new(RuleSet::compile(&[source(&text)], &files, &Settings::default()).unwrap());
        assert_eq!(get(&set, "/?a=x", &[]).0, Verdict::Pass, "{exclusion}");
        // They may also stand before the rules that they change.
        let text = format!("{exclusion}\nSecAction \"id:99,phase:1,pass,nolog\"\n{base}");
        let set = Arc::new(RuleSet::compile(&[source(&text)], &files, &Settings::default()).unwrap());
        assert_eq!(get(&set, "/?a=x", &[]).0, Verdict::Pass, "{exclusion}");
    }
}

#[test]
fn actions_of_a_rule_are_changed_and_added_to() {
    let set = load(
        "SecRule ARGS \"@rx x\" \"id:1,phase:1,pass,msg:'old',setvar:tx.a=1\"\n\
         SecRule TX:a \"@eq 1\" \"id:2,phase:1,pass,chain\"\nSecRule TX:b \"@eq 2\" \"t:none\"\n\
         SecRuleUpdateActionById 1 \"deny,status:418,msg:'new',setvar:tx.b=2\"\n\
         SecRuleUpdateActionById 2:1 \"setvar:tx.c=3\"",
    );
    let mut transaction = begin(&set);
    let verdict = transaction.request_head(b"GET", b"/?a=x", b"HTTP/1.1", fields(&[]));
    assert_eq!(verdict, Verdict::Block { status: 418, rule: 1 });
    assert_eq!(transaction.matched()[0].msg, "new");
}

#[test]
fn skip_leaves_out_rules_and_counts_a_chain_as_one() {
    let rules = |count: usize| {
        format!(
            "SecAction \"id:1,phase:1,nolog,pass,skip:{count}\"\n\
             SecRule ARGS:a \"@streq 1\" \"id:2,phase:1,pass,chain\"\nSecRule ARGS:a \"@streq 1\" \"t:none\"\n\
             SecRule ARGS:a \"@streq 1\" \"id:3,phase:1,pass\"\nSecRule ARGS:a \"@streq 1\" \"id:4,phase:1,pass\""
        )
    };
    for (count, ids) in [(0, &[2, 3, 4][..]), (1, &[3, 4]), (2, &[4]), (3, &[]), (9, &[])] {
        assert_eq!(get(&load(&rules(count)), "/?a=1", &[]).1, ids, "{count}");
    }
}

#[test]
fn each_step_of_a_multi_match_counts() {
    let set = load(
        "SecRule ARGS \"@rx [aA]\" \"id:1,phase:1,pass,multiMatch,t:none,t:lowercase,setvar:tx.n=+1\"\n\
         SecRule TX:n \"@eq 2\" \"id:2,phase:1,deny\"",
    );
    assert_eq!(get(&set, "/?x=A", &[]).1, [1, 2], "before and after; it is told once");
    assert_eq!(get(&set, "/?x=a", &[]).1, [1], "an unchanged value is one");
}

#[test]
fn bodies_are_read_as_what_they_say_they_are() {
    let set = load("SecRule ARGS|FILES|FILES_NAMES|XML:/*|XML://@* \"@rx ^evil$\" \"id:1,phase:2,deny\"");
    let check = |kind: &str, body: &str, expected: bool| {
        let (verdict, _) = run(&set, "POST", "/", &[("Content-Type", kind)], body.as_bytes());
        assert_eq!(matches!(verdict, Verdict::Block { rule: 1, status: 403 }), expected, "{kind} {body}");
    };
    check("application/x-www-form-urlencoded", "a=1&b=%65vil", true);
    check("application/json", r#"{"a":[{"b":"evil"}]}"#, true);
    check("application/json", r#"{"a":"ok"}"#, false);
    check("text/xml", "<a><b>evil</b></a>", true);
    check("text/xml", "<a b='evil'/>", true);
    let multipart =
        "--x\r\nContent-Disposition: form-data; name=\"f\"; filename=\"evil\"\r\n\r\ndata\r\n--x--\r\n";
    check("multipart/form-data; boundary=x", multipart, true);
    check("multipart/form-data; boundary=x", &multipart.replace("evil", "good"), false);
    check(
        "multipart/form-data; boundary=\"x\"",
        "--x\r\nContent-Disposition: form-data; name=a\r\n\r\nevil\r\n--x--\r\n",
        true,
    );
}

#[test]
fn a_body_that_cannot_be_read_is_refused() {
    let set = load("SecAction \"id:9,phase:1,pass,nolog\"");
    for (kind, body) in [
        ("application/json", "{"),
        ("text/xml", "<a"),
        ("multipart/form-data; boundary=x", "--x\r\n\r\n"),
        ("multipart/form-data", "x"),
    ] {
        let (verdict, ids) = run(&set, "POST", "/", &[("Content-Type", kind)], body.as_bytes());
        assert_eq!((verdict, ids), (Verdict::Block { status: 400, rule: 1 }, vec![1]), "{kind}");
    }
}

#[test]
fn a_packed_body_is_unpacked_before_rules_see_it() {
    use std::io::Write;
    let set = load("SecRule ARGS:q \"@streq evil\" \"id:2,phase:2,deny\"");
    let packed = |body: &[u8]| {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        out.write_all(body).unwrap();
        out.finish().unwrap()
    };
    let post = |codings: &[&str], body: &[u8]| {
        let mut headers = vec![("Content-Type", "application/json")];
        headers.extend(codings.iter().map(|coding| ("content-encoding", *coding)));
        run(&set, "POST", "/", &headers, body).0
    };
    let (evil, good) = (br#"{"json":"x","q":"evil"}"#, br#"{"q":"good"}"#);
    assert_eq!(post(&["gzip"], &packed(good)), Verdict::Pass);
    let form = [("Content-Type", "application/x-www-form-urlencoded"), ("Content-Encoding", "GZip")];
    assert_eq!(run(&set, "POST", "/", &form, &packed(b"q=evil")).0, Verdict::Block { status: 403, rule: 2 });
    let refused = Verdict::Block { status: 400, rule: 1 };
    assert_eq!(post(&["gzip"], evil), refused, "it is not what it says");
    assert_eq!(post(&["gzip", "gzip"], &packed(good)), refused, "packed once, said twice");
    assert_eq!(post(&["lzma"], good), refused);
    assert_eq!(post(&["gzip"], &packed(&vec![b' '; 1 << 20])), refused, "larger than what is inspected");
    assert_eq!(post(&["identity"], good), Verdict::Pass);
}

#[test]
fn nothing_passes_because_it_comes_late_or_under_two_names() {
    let set = load("SecRule ARGS|REQUEST_COOKIES \"@rx evil\" \"id:1000,phase:2,deny\"");
    let many = "a=1&".repeat(1000);
    assert!(matches!(get(&set, &format!("/?{many}z=1"), &[]).0, Verdict::Block { status: 400, rule: 1 }));
    assert_eq!(get(&set, &format!("/?{}", many.trim_end_matches('&')), &[]).0, Verdict::Pass);
    let cookies = "a=1; ".repeat(1001);
    assert!(matches!(get(&set, "/", &[("Cookie", &cookies)]).0, Verdict::Block { rule: 1, .. }));
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    let body = format!("{many}z=evil");
    assert!(matches!(run(&set, "POST", "/", &form, body.as_bytes()).0, Verdict::Block { rule: 1, .. }));
    let json = format!("[{}\"evil\"]", "1,".repeat(1000));
    let kind = [("Content-Type", "application/json")];
    assert!(matches!(run(&set, "POST", "/", &kind, json.as_bytes()).0, Verdict::Block { rule: 1, .. }));
    let two = [form[0], ("Content-Type", "text/plain")];
    assert!(matches!(run(&set, "POST", "/", &two, b"a=evil").0, Verdict::Block { rule: 1, .. }));
    let same = [form[0], form[0]];
    assert!(matches!(run(&set, "POST", "/", &same, b"a=evil").0, Verdict::Block { rule: 1000, .. }));
    let xml = load("SecRule XML:/* \"@contains evil\" \"id:1000,phase:2,deny\"");
    let hidden = b"<!DOCTYPE a [<!ENTITY x \"evil\">]><a>&x;</a>";
    assert_ne!(run(&xml, "POST", "/", &[("Content-Type", "text/xml")], hidden).0, Verdict::Pass);
}

#[test]
fn the_policy_overrules_the_set_up_of_the_rules() {
    let setup = "SecAction \"id:1,phase:1,pass,nolog,setvar:tx.paranoia_level=4,setvar:tx.own=1\"";
    let rules = "SecRule TX:paranoia_level \"@eq 1\" \"id:2,phase:1,deny,chain\"\nSecRule TX:own \"@eq 2\"";
    let sources =
        [bastide_waf::Source { name: "/etc/crs-setup.conf".into(), bytes: setup.into() }, source(rules)];
    let settings = Settings { variables: vec![("own".into(), "2".into())], ..Settings::default() };
    let set = Arc::new(RuleSet::compile(&sources, &Memory(vec![]), &settings).unwrap());
    assert!(matches!(get(&set, "/", &[]).0, Verdict::Block { rule: 2, .. }));
}

#[test]
fn answers_are_inspected() {
    let set = load(
        "SecRule RESPONSE_STATUS \"@streq 500\" \"id:1,phase:3,deny\"\nSecRule RESPONSE_BODY \"@contains secret\" \"id:2,phase:4,deny\"",
    );
    let mut transaction = begin(&set);
    assert_eq!(
        transaction.response_head(200, b"HTTP/1.1", fields(&[("Content-Type", "text/html")])),
        Verdict::Pass
    );
    assert!(
        transaction.wants_response_body(b"text/html; charset=utf-8")
            && !transaction.wants_response_body(b"image/png")
    );
    assert_eq!(transaction.response_body(b"a secret", true), Verdict::Block { status: 403, rule: 2 });
    assert!(matches!(
        begin(&set).response_head(500, b"HTTP/1.1", fields(&[])),
        Verdict::Block { rule: 1, .. }
    ));
}

#[test]
fn detect_tells_the_same_and_never_blocks() {
    let rules = [source("SecRule ARGS \"@rx x\" \"id:1,phase:1,deny,msg:'m'\"")];
    let settings = Settings { mode: Mode::Detect, ..Settings::default() };
    let set = Arc::new(RuleSet::compile(&rules, &Memory(vec![]), &settings).unwrap());
    let mut transaction = begin(&set);
    assert_eq!(transaction.request_head(b"GET", b"/?a=x", b"HTTP/1.1", fields(&[])), Verdict::Pass);
    let audit = transaction.finish();
    assert!(audit.would_block && !audit.blocked && audit.wanted);
    assert_eq!((audit.matches[0].id, audit.rule), (1, Some(1)));
    let mut unreadable = begin(&set);
    unreadable.request_head(b"POST", b"/", b"HTTP/1.1", fields(&[("Content-Type", "application/json")]));
    assert_eq!(unreadable.request_body(b"{", true), Verdict::Pass);
    assert!(unreadable.finish().would_block, "a body that cannot be read is told, too");
}

#[test]
fn what_cannot_be_loaded_is_named_with_its_place() {
    let check = |text: &str, part: &str| {
        let Err(error) = RuleSet::compile(&[source(text)], &Memory(vec![]), &Settings::default()) else {
            panic!("{text}")
        };
        assert!(error.to_string().contains(part), "{error}");
    };
    check("", "no rules");
    check("\nSecNope x", "test.conf:2: directive SecNope");
    check("SecRule NOPE x \"id:1\"", "variable NOPE");
    check("SecRule ARGS \"@nope x\" \"id:1\"", "operator @nope");
    check("SecRule ARGS x \"id:1,t:nope\"", "transformation nope");
    check("SecRule ARGS x \"id:1,nope\"", "action nope");
    check("SecRule ARGS x \"id:1,ctl:nope=1\"", "ctl nope");
    check("SecRule ARGS x \"id:1,ctl:requestBodyProcessor=NOPE\"", "body processor NOPE");
    check("SecRule ARGS x \"id:1,msg:'%{nope}'\"", "macro %{nope}");
    check("SecRule ARGS x \"id:1,setvar:nope.a=1\"", "setvar of NOPE");
    check("SecRuleUpdateActionById 1 \"id:2\"\nSecRule ARGS x \"id:1\"", "cannot be changed");
    check("SecRule XML:/a/b x \"id:1\"", "XPath /a/b");
    check("SecRule ARGS \"(\" \"id:1\"", "pattern");
    check("SecRule ARGS x \"phase:1\"", "needs an id");
    check("SecRule ARGS x \"id:1\"\nSecRule ARGS x \"id:1\"", "twice");
    check("SecRule ARGS x \"id:1,chain\"", "chain is not finished");
    check("Include nope.conf", "nope.conf");
    let skips = "SecMarker END\nSecRule ARGS x \"id:1,skipAfter:END\"";
    check(skips, "test.conf:2: skipAfter: no marker `END` follows");
    check("SecRule ARGS \"@pmFromFile nope.data\" \"id:1\"", "nope.data");
}

#[test]
fn bytes_stay_bytes() {
    let set = load("SecRule ARGS \"@rx ^\\xff\\xfe$\" \"id:1,phase:1,deny\"");
    assert_ne!(get(&set, "/?a=%ff%fe", &[]).0, Verdict::Pass);
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_the_engine_panic(target: Vec<u8>, value: Vec<u8>, body: Vec<u8>) {
        let set = load("SecRule ARGS|REQUEST_HEADERS|XML:/*|FILES \"@detectSQLi\" \"id:1,phase:2,pass,multiMatch,t:none,t:urlDecodeUni,t:htmlEntityDecode\"");
        for kind in ["application/json", "text/xml", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded"] {
            let mut transaction = begin(&set);
            transaction.request_head(b"POST", &target, b"HTTP/1.1", [(&b"content-type"[..], kind.as_bytes()), (b"cookie", &value)].into_iter());
            transaction.request_body(&body, true);
            serde_json::to_string(&transaction.finish()).unwrap();
        }
    }
}

#[test]
fn an_exclusion_leaves_out_a_target_of_a_rule_on_a_path_and_nothing_else() {
    let set = load(
        "SecRule ARGS \"@rx attack\" \"id:10,phase:2,deny,tag:t\"\nSecRule ARGS \"@rx bomb\" \"id:11,phase:2,deny\"",
    );
    let with = |rules: &str, target: Option<&str>, path: Option<&str>| {
        let one = Exclusion {
            rules: rules.into(),
            target: target.map(str::to_owned),
            path: path.map(str::to_owned),
        };
        set.with(&Settings { exclusions: vec![one], ..Settings::default() }).map(Arc::new)
    };
    let check = |set: &Arc<RuleSet>, target: &str, ids: &[u32]| {
        assert_eq!(get(set, target, &[]).1, ids, "{target}");
    };
    for rules in ["10", "9-10", "tag:t"] {
        let one = with(rules, Some("ARGS:q"), Some("/a/*")).unwrap();
        check(&one, "/a/x?q=attack", &[]);
        check(&one, "/a/x?Q=attack", &[]);
        check(&one, "/a/x?p=attack", &[10]);
        check(&one, "/b?q=attack", &[10]);
        check(&one, "/a/x?q=bomb", &[11]);
        // The path that the router takes must lie there too.
        check(&one, "/a/../b?q=attack", &[10]);
        check(&one, "/a/%2e%2e/b?q=attack", &[10]);
        check(&with(rules, None, Some("/a")).unwrap(), "/a?p=attack", &[]);
        check(&with(rules, None, Some("/a")).unwrap(), "/a/b?p=attack", &[10]);
    }
    check(&set, "/a/x?q=attack", &[10]);
    for (rules, target) in
        [("x", None), ("tag:", None), ("10", Some("ARGS:a|ARGS:b")), ("10", Some("NOTHING:x"))]
    {
        assert!(with(rules, target, None).is_err(), "{rules} {target:?}");
    }
}

#[test]
fn each_of_many_exclusions_is_for_its_own_rule() {
    let rule = |id: u32| format!("SecRule ARGS \"@rx evil\" \"id:{id},phase:1,pass\"\n");
    let rules: String = (1..=80).map(rule).collect::<Vec<_>>().concat();
    let exclusion =
        |id: u32| Exclusion { rules: id.to_string(), target: Some(format!("ARGS:a{id}")), path: None };
    let set = load(&rules);
    let settings = Settings { exclusions: (1..=80).map(exclusion).collect(), ..Settings::default() };
    let set = Arc::new(set.with(&settings).unwrap());
    for id in [1, 63, 64, 70, 80] {
        let (_, ids) = get(&set, &format!("/?a{id}=evil"), &[]);
        assert_eq!(ids, (1..=80).filter(|other| *other != id).collect::<Vec<_>>(), "{id}");
    }
}

#[test]
fn the_policy_overrules_a_set_up_file_of_any_name() {
    let set_up = source("SecAction \"id:900000,phase:1,pass,nolog,setvar:tx.blocking_paranoia_level=1\"");
    let rules = "SecRule &TX:blocking_paranoia_level \"@eq 0\" \"id:901120,phase:1,pass,nolog,setvar:tx.blocking_paranoia_level=1\"\n\
                 SecRule TX:blocking_paranoia_level \"@ge 3\" \"id:20,phase:1,deny\"";
    let sources = [set_up, bastide_waf::Source { name: "rules.conf".into(), bytes: rules.into() }];
    let settings = Settings { paranoia: 3, ..Settings::default() };
    let set = Arc::new(RuleSet::compile(&sources, &crate::Memory(Vec::new()), &settings).unwrap());
    assert_eq!(get(&set, "/", &[]).1, [20]);
}

#[test]
fn a_match_names_the_value_that_matched() {
    let set = load(
        "SecRule ARGS \"@rx attack\" \"id:10,phase:2,deny,chain\"\nSecRule REQUEST_METHOD \"@streq GET\" \"t:none\"",
    );
    let mut transaction = crate::begin(&set);
    transaction.request_head(b"GET", b"/?q=attack", b"HTTP/1.1", fields(&[]));
    transaction.request_body(b"", true);
    assert_eq!(transaction.finish().matches[0].target, "ARGS:q");
}

#[test]
fn an_exclusion_by_message_means_rules_with_exactly_that_message() {
    let set = load(
        "SecRule ARGS \"@rx attack\" \"id:10,phase:2,deny,msg:'An attack (any)'\"\nSecRule ARGS \"@rx bomb\" \"id:11,phase:2,deny,msg:'An attack (any), too'\"",
    );
    let one = Exclusion { rules: "msg:An attack (any)".into(), target: None, path: None };
    let with = set.with(&Settings { exclusions: vec![one], ..Settings::default() }).map(Arc::new).unwrap();
    assert_eq!(get(&with, "/?q=attack", &[]).1, [] as [u32; 0]);
    assert_eq!(get(&with, "/?q=bomb", &[]).1, [11]);
}

#[test]
fn an_exclusion_that_would_switch_the_scoring_off_cannot_be_loaded() {
    let set = load(
        "SecRule ARGS \"@rx attack\" \"id:10,phase:2,block,tag:t,setvar:tx.score_pl1=+5\"\n\
         SecRule TX:LEVEL \"!@eq 9\" \"id:11,phase:2,pass,nolog,tag:t,tag:sum,setvar:tx.blocking_inbound_anomaly_score=+%{tx.score_pl1}\"\n\
         SecRule TX:BLOCKING_INBOUND_ANOMALY_SCORE \"@ge 5\" \"id:12,phase:2,deny,tag:end,msg:'Too much'\"\n\
         SecRule TX:/^counted_/ \"@gt 1\" \"id:13,phase:2,block,tag:count\"",
    );
    let with = |rules: &str, target: Option<&str>| {
        let one =
            Exclusion { rules: rules.into(), target: target.map(str::to_owned), path: Some("/x".into()) };
        set.with(&Settings { exclusions: vec![one], ..Settings::default() })
    };
    for (rules, target) in [
        ("11", None),
        ("12", None),
        ("1-99", None),
        ("tag:t", None),
        ("tag:sum", None),
        ("tag:end", None),
        ("msg:Too much", None),
        ("12", Some("TX:blocking_inbound_anomaly_score")),
        ("tag:end", Some("TX")),
    ] {
        let refused = with(rules, target).map(|_| ()).unwrap_err().to_string();
        assert!(refused.contains("adds up scores or decides"), "{rules} {target:?}: {refused}");
    }
    for (rules, target) in [("10", None), ("13", None), ("tag:t", Some("ARGS:q")), ("tag:count", None)] {
        with(rules, target).unwrap();
    }
}

#[test]
fn what_is_told_masked_shows_no_value_of_the_request() {
    let rules = "SecRule ARGS \"@rx (hunter\\d)\" \"id:10,phase:2,pass,capture,setvar:'tx.kept=%{tx.0}',setvar:tx.count=7,\
         msg:'Found %{TX.0}',logdata:'%{TX.kept} %{TX.1} %{TX.count} %{MATCHED_VAR_NAME} %{MATCHED_VAR} %{REQUEST_URI} \
         %{REQUEST_HEADERS.X-Key} %{ARGS.q} %{REQUEST_METHOD}'\"";
    let set = load(rules);
    let masked = Arc::new(set.with(&Settings { masked: true, ..Settings::default() }).unwrap());
    let told = |set: &Arc<RuleSet>| {
        let mut transaction = crate::begin(set);
        transaction.request_head(b"GET", b"/?q=hunter2", b"HTTP/1.1", fields(&[("X-Key", "hunter3")]));
        transaction.request_body(b"", true);
        transaction.finish().matches.remove(0)
    };
    let open = told(&set);
    assert_eq!((open.msg.as_str(), open.logdata.split(' ').next()), ("Found hunter2", Some("hunter2")));
    let masked = told(&masked);
    assert_eq!(masked.msg, "Found ***");
    assert_eq!(
        masked.logdata.split_whitespace().collect::<Vec<_>>(),
        ["***", "***", "7", "ARGS:q", "***", "***", "***", "***", "GET"]
    );
}

#[test]
fn the_shell_may_object_to_what_the_policy_does_not_want() {
    let set = load("SecAction \"id:10,phase:2,pass,nolog\"");
    for (mode, verdict) in
        [(Mode::Block, Verdict::Block { status: 400, rule: 1 }), (Mode::Detect, Verdict::Pass)]
    {
        let set = Arc::new(set.with(&Settings { mode, ..Settings::default() }).unwrap());
        let mut transaction = crate::begin(&set);
        transaction.request_head(b"POST", b"/", b"HTTP/1.1", fields(&[]));
        assert_eq!(transaction.object("it is too long", "REQUEST_BODY", 2), verdict);
        let audit = transaction.finish();
        assert_eq!((audit.would_block, audit.matches[0].logdata.as_str()), (true, "it is too long"));
    }
}
