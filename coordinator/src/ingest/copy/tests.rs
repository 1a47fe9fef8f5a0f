//! Expected values and errors are PostgreSQL 15's for the same bytes.

use super::*;
use datafusion::sql::sqlparser::ast::Statement;
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;
use engine::PgType;
use engine::types::{Formatter, TimeContext};
use proto::{Error, Result};

fn options(sql: &str) -> Result<CopyOptions> {
    let statement = Parser::parse_sql(&PostgreSqlDialect {}, &format!("COPY t {sql}")).unwrap().remove(0);
    let Statement::Copy { to, options, legacy_options, .. } = statement else { panic!("{statement} is no COPY") };
    let direction = if to { CopyDirection::To } else { CopyDirection::From };
    match CopyForm::parse(direction, &options, &legacy_options)? {
        CopyForm::Delimited(options) => Ok(options),
        CopyForm::Binary => panic!("not a delimited form: {sql}"),
    }
}

fn columns(types: &str) -> Vec<(String, PgType)> {
    let names = ["a", "b", "c"];
    types.split(';').zip(names).map(|(ty, name)| (name.to_owned(), PgType::parse(ty).unwrap())).collect()
}

/// Copies in and out again as text, the input in pieces of `piece` bytes.
fn copied(with: &CopyOptions, types: &str, data: &[u8], piece: usize) -> Result<String> {
    let columns = columns(types);
    let mut parser = CopyParser::new(with.clone(), &columns, TimeContext::UTC, "t")?;
    let mut batches = Vec::new();
    for part in data.chunks(piece) {
        batches.extend(parser.push(part)?);
    }
    batches.extend(parser.finish()?);
    let writer = CopyWriter::new(CopyOptions::text(), columns, Formatter::UTC)?;
    let mut out = Vec::new();
    for batch in &batches {
        writer.write(batch, &mut out)?;
    }
    Ok(String::from_utf8(out).unwrap())
}

const ABC: &str = "int;text;float8";

#[track_caller]
fn gives(with: &str, types: &str, data: &[u8], expected: &str) {
    let with = options(&format!("FROM STDIN {with}")).unwrap();
    for piece in [1, 3, 1 << 20] {
        assert_eq!(copied(&with, types, data, piece).as_deref(), Ok(expected), "in pieces of {piece}");
    }
}

#[track_caller]
fn fails(with: &str, types: &str, data: &[u8], code: &str, message: &str, context: &str) {
    let with = options(&format!("FROM STDIN {with}")).unwrap();
    for piece in [1, 3, 1 << 20] {
        let error: Error = copied(&with, types, data, piece).unwrap_err();
        let seen = (error.code.as_str(), error.message.as_str(), error.context.as_deref().unwrap_or_default());
        assert_eq!(seen, (code, message, context), "in pieces of {piece}");
    }
}

#[test]
fn text_is_read() {
    gives("", ABC, b"1\tx\t2.5\n2\t\\N\t\\N\n", "1\tx\t2.5\n2\t\\N\t\\N\n");
    gives("", ABC, b"1\ta\\tb\\x41\\101\\q\\\\\t2\n", "1\ta\\tbAAq\\\\\t2\n");
    gives("", ABC, b"1\ta\\\nb\t2\n", "1\ta\\nb\t2\n");
    gives("", ABC, b"1\ta\t2\n\\.\nrest\n", "1\ta\t2\n");
    gives("", ABC, b"1\ta\t2\r\n2\tb\t3\r\n", "1\ta\t2\n2\tb\t3\n");
    gives("", ABC, b"1\ta\t2", "1\ta\t2\n");
    gives("", ABC, b"", "");
    gives("", "text", b"\n", "\n");
    gives("", "text", b"a\\\n", "a\\n\n");
    gives("", "text", b"a\\", "a\n");
    gives("", "text;int", b"\\x\t1\n", "x\t1\n");
    gives("(HEADER)", ABC, b"a\tb\tc\n1\tx\t2\n", "1\tx\t2\n");
    gives("WITH DELIMITER AS '|' NULL AS 'nil'", ABC, b"1|nil|2\n", "1\t\\N\t2\n");
}

#[test]
fn csv_is_read() {
    let csv = "(FORMAT csv)";
    gives(csv, ABC, b"1,x,2.5\n2,,\n3,\"\",4\n", "1\tx\t2.5\n2\t\\N\t\\N\n3\t\t4\n");
    gives(csv, ABC, b"1,\"a \"\"q\"\" b\nc\",2\n", "1\ta \"q\" b\\nc\t2\n");
    gives(csv, ABC, b"1,x\"y,z\"w,2\n", "1\txy,zw\t2\n");
    gives(csv, ABC, b"1,a,2\r\n2,b,3\r\n", "1\ta\t2\n2\tb\t3\n");
    gives(csv, ABC, b"1,a,2\n\\.\nrest\n", "1\ta\t2\n");
    gives(csv, ABC, b"1,\"x\n\\.\ny\",2\n\\.\n", "1\tx\\n\\\\.\\ny\t2\n");
    gives(csv, ABC, b"1,\\.,2\n", "1\t\\\\.\t2\n");
    gives(csv, "text", b"\n", "\\N\n");
    gives(csv, "text", b"\"\"\n", "\n");
    gives("csv header", ABC, b"q,w,e\n1,x,3\n", "1\tx\t3\n");
    gives("(FORMAT csv, NULL 'NULL')", ABC, b"1,NULL,2\n2,\"NULL\",3\n3,,4\n", "1\t\\N\t2\n2\tNULL\t3\n3\t\t4\n");
    gives("(FORMAT csv, FORCE_NULL (b))", ABC, b"1,\"\",2\n", "1\t\\N\t2\n");
    gives("(FORMAT csv, FORCE_NOT_NULL (b))", ABC, b"1,,2\n", "1\t\t2\n");
    gives("(FORMAT csv, QUOTE '''', ESCAPE '\\')", ABC, b"1,'a\\'b\\\\c',2\n", "1\ta'b\\\\c\t2\n");
    gives("(FORMAT csv, DELIMITER '|')", ABC, b"1|a,b|2\n", "1\ta,b\t2\n");
}

#[test]
fn wrong_text_names_line_and_column() {
    let csv = "(FORMAT csv)";
    let float = "invalid input syntax for type double precision:";
    fails("", ABC, b"1\tx\n", "22P04", "missing data for column \"c\"", "COPY t, line 1: \"1\tx\"");
    let extra = "extra data after last expected column";
    fails("", ABC, b"1\tx\t2\t3\n", "22P04", extra, "COPY t, line 1: \"1\tx\t2\t3\"");
    let integer = "invalid input syntax for type integer:";
    fails("", ABC, b"abc\tx\t2\n", "22P02", &format!("{integer} \"abc\""), "COPY t, line 1, column a: \"abc\"");
    fails("", ABC, b"1\tx\t2\n2\ty\tzz\n", "22P02", &format!("{float} \"zz\""), "COPY t, line 2, column c: \"zz\"");
    fails("", ABC, b"\n", "22P02", &format!("{integer} \"\""), "COPY t, line 1, column a: \"\"");
    let cr = "literal carriage return found in data";
    fails("", ABC, b"1\ta\t2\n2\tb\t3\r\n", "22P04", cr, "COPY t, line 2");
    fails("", ABC, b"1\ta\t2\r\n2\tb\t3\n", "22P04", "literal newline found in data", "COPY t, line 2");
    let utf8 = "invalid byte sequence for encoding \"UTF8\": 0xff";
    fails("", ABC, b"1\t\xff\t2\n", "22021", utf8, "COPY t, line 1");
    fails("", ABC, b"1\ta\\xff\t2\n", "22021", utf8, "COPY t, line 1: \"1\ta\\xff\t2\"");
    fails(csv, ABC, b"1,x\n", "22P04", "missing data for column \"c\"", "COPY t, line 1: \"1,x\"");
    fails(csv, ABC, b"1,x,2,3\n", "22P04", extra, "COPY t, line 1: \"1,x,2,3\"");
    fails(csv, ABC, b"1,a,2\n\n", "22P04", "missing data for column \"b\"", "COPY t, line 2: \"\"");
    let unquoted = "unquoted carriage return found in data";
    fails(csv, ABC, b"1,a,2\n2,b,3\r\n", "22P04", unquoted, "COPY t, line 2");
    fails(csv, ABC, b"1,a,2\r\n2,b,3\n", "22P04", "unquoted newline found in data", "COPY t, line 2");
    fails(csv, ABC, b"1,\"x\",abc\n", "22P02", &format!("{float} \"abc\""), "COPY t, line 1, column c: \"abc\"");
    let open = "unterminated CSV quoted field";
    fails(csv, ABC, b"1,\"abc\n", "22P04", open, "COPY t, line 1: \"1,\"abc\n\"");
    let header = "(FORMAT csv, HEADER)";
    fails(header, ABC, b"q,w,e\n1,x,abc\n", "22P02", &format!("{float} \"abc\""), "COPY t, line 2, column c: \"abc\"");
    let long = "value too long for type character varying(3)";
    fails(csv, "varchar(3)", b"abcd\n", "22001", long, "COPY t, line 1, column a: \"abcd\"");
    let date = "date/time field value out of range: \"2019-13-01\"";
    fails(csv, "timestamptz", b"2019-13-01\n", "22008", date, "COPY t, line 1, column a: \"2019-13-01\"");
    let shown = format!("COPY t, line 1: \"1\t{}...\"", "y".repeat(98));
    fails("", ABC, format!("1\t{}\n", "y".repeat(150)).as_bytes(), "22P04", "missing data for column \"c\"", &shown);
}

#[test]
fn a_header_can_be_made_to_match() {
    let with = CopyOptions { header: HeaderLine::Match, ..CopyOptions::csv() };
    assert_eq!(copied(&with, ABC, b"a,b,c\n1,x,3\n", 100).as_deref(), Ok("1\tx\t3\n"));
    let cases: [(&[u8], &str, &str); 3] = [
        (b"a,x,c\n", "column name mismatch in header line field 2: got \"x\", expected \"b\"", "a,x,c"),
        (b"a,b\n", "wrong number of fields in header line: got 2, expected 3", "a,b"),
        (b"a,b,\n", "column name mismatch in header line field 3: got null value (\"\"), expected \"c\"", "a,b,"),
    ];
    for (data, message, line) in cases {
        let error = copied(&with, ABC, data, 100).unwrap_err();
        assert_eq!((error.code.as_str(), error.message.as_str()), ("22P04", message));
        assert_eq!(error.context, Some(format!("COPY t, line 1: \"{line}\"")));
    }
}

#[test]
fn options_that_contradict_are_refused() {
    let cases = [
        ("FROM STDIN (FORMAT foo)", "22023", "COPY format \"foo\" not recognized"),
        ("FROM STDIN (FORMAT csv, FORMAT csv)", "42601", "conflicting or redundant options"),
        ("FROM STDIN (DELIMITER 'a')", "22023", "COPY delimiter cannot be \"a\""),
        ("FROM STDIN (DELIMITER '.')", "22023", "COPY delimiter cannot be \".\""),
        ("FROM STDIN (DELIMITER E'\\n')", "22023", "COPY delimiter cannot be newline or carriage return"),
        ("FROM STDIN (FORMAT csv, DELIMITER '\"')", "22023", "COPY delimiter and quote must be different"),
        ("FROM STDIN (QUOTE 'a')", "0A000", "COPY quote available only in CSV mode"),
        ("FROM STDIN (ESCAPE 'a')", "0A000", "COPY escape available only in CSV mode"),
        ("FROM STDIN (FORCE_NULL (a))", "0A000", "COPY force null available only in CSV mode"),
        ("FROM STDIN (FORMAT csv, FORCE_QUOTE (a))", "0A000", "COPY force quote only available using COPY TO"),
        ("TO STDOUT (FORMAT csv, FORCE_NULL (a))", "0A000", "COPY force null only available using COPY FROM"),
        ("TO STDOUT (FORMAT csv, FORCE_NOT_NULL (a))", "0A000", "COPY force not null only available using COPY FROM"),
        ("FROM STDIN (NULL E'\\n')", "22023", "COPY null representation cannot use newline or carriage return"),
        ("FROM STDIN (FORMAT csv, NULL ',')", "0A000", "COPY delimiter must not appear in the NULL specification"),
        (
            "FROM STDIN (FORMAT csv, NULL '\"')",
            "0A000",
            "CSV quote character must not appear in the NULL specification",
        ),
        ("FROM STDIN (FORMAT binary, DELIMITER ',')", "42601", "cannot specify DELIMITER in BINARY mode"),
        ("FROM STDIN (FORMAT binary, NULL '')", "42601", "cannot specify NULL in BINARY mode"),
        ("FROM STDIN (FORMAT binary, HEADER)", "0A000", "cannot specify HEADER in BINARY mode"),
    ];
    for (sql, code, message) in cases {
        let error = options(sql).unwrap_err();
        assert_eq!((error.code.as_str(), error.message.as_str()), (code, message), "{sql}");
    }
    let with = options("FROM STDIN (FORMAT csv, FORCE_NULL (z))").unwrap();
    let error = copied(&with, ABC, b"", 1).unwrap_err();
    assert_eq!(
        (error.code.as_str(), error.message.as_str()),
        ("42703", "column \"z\" of relation \"t\" does not exist")
    );
}

/// The ten values that PostgreSQL was asked to write with different options.
fn written(with: &str) -> String {
    let text = b"1\ta\\tb\\n\\\\c\\r\\b\\f\\v\x01\n2\t\\N\n3\t\n4\tx,y\n5\tsay \"hi\"\n6\ttwo\\nlines\n7\t\\\\N\n8\t\\\\.\n9\t pad \n10\t\xc3\xa9|\n";
    let columns = columns("int;text");
    let mut parser = CopyParser::new(CopyOptions::text(), &columns, TimeContext::UTC, "t").unwrap();
    assert!(parser.push(text).unwrap().is_empty());
    let batch = parser.finish().unwrap().remove(0);
    let writer = CopyWriter::new(options(&format!("TO STDOUT {with}")).unwrap(), columns, Formatter::UTC).unwrap();
    let mut out = Vec::new();
    writer.write_header(&mut out);
    writer.write(&batch, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn text_and_csv_are_written() {
    let rest = "7\t\\\\N\n8\t\\\\.\n9\t pad \n10\té|\n";
    let escaped = "1\ta\\tb\\n\\\\c\\r\\b\\f\\v\x01\n";
    let middle = "3\t\n4\tx,y\n5\tsay \"hi\"\n6\ttwo\\nlines\n";
    assert_eq!(written(""), format!("{escaped}2\t\\N\n{middle}{rest}"));
    assert_eq!(written("(HEADER, NULL 'x')"), format!("a\tb\n{escaped}2\tx\n{middle}{rest}"));
    let first = "1,\"a\tb\n\\c\r\x08\x0c\x0b\x01\"\n";
    let tail = "7,\\N\n8,\\.\n9, pad \n10,é|\n";
    let quoted = "4,\"x,y\"\n5,\"say \"\"hi\"\"\"\n6,\"two\nlines\"\n";
    assert_eq!(written("(FORMAT csv)"), format!("{first}2,\n3,\"\"\n{quoted}{tail}"));
    assert_eq!(written("(FORMAT csv, NULL '3')"), format!("{first}2,3\n\"3\",\n{quoted}{tail}"));
    let forced = written("(FORMAT csv, FORCE_QUOTE (b))");
    assert!(forced.ends_with("7,\"\\N\"\n8,\"\\.\"\n9,\" pad \"\n10,\"é|\"\n"), "{forced}");
    assert!(
        written("(DELIMITER '|', NULL '')")
            .ends_with("2|\n3|\n4|x,y\n5|say \"hi\"\n6|two\\nlines\n7|\\\\N\n8|\\\\.\n9| pad \n10|é\\|\n")
    );
    let distinct = written("(FORMAT csv, QUOTE '''', ESCAPE '\\')");
    assert!(distinct.starts_with("1,'a\tb\n\\\\c\r"), "{distinct}");
    assert!(written("(FORMAT csv, HEADER)").starts_with("a,b\n"));
}

#[test]
fn a_record_without_end_is_refused() {
    let mut splitter = LineSplitter::new(&CopyOptions::csv());
    let piece = vec![b'x'; RECORD_BYTES_MAX / 4];
    for _ in 0..4 {
        assert_eq!(splitter.push(&piece), Ok(None));
    }
    assert_eq!(splitter.push(b"y").unwrap_err().code.as_str(), "54000");
}

#[test]
fn batches_are_cut_by_rows() {
    let mut parser = CopyParser::new(CopyOptions::csv(), &columns("int"), TimeContext::UTC, "t").unwrap();
    let data = "7\n".repeat(100_000);
    let full = parser.push(data.as_bytes()).unwrap();
    assert_eq!(full.iter().map(|batch| batch.num_rows()).collect::<Vec<_>>(), [65_536]);
    assert_eq!(parser.finish().unwrap()[0].num_rows(), 100_000 - 65_536);
}
