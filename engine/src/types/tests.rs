//! Every case that PostgreSQL 15 was asked, through all four doors: text in, text out, binary out, binary in.

use super::{ColumnBinary, ColumnBuilder, ColumnText, Formatter, PgType, TimeContext, TimeZone};
use arrow::array::Array;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap()).collect()
}

/// `None` when we agree with PostgreSQL.
fn disagreement(line: &str) -> Option<String> {
    let fields: Vec<&str> = line.split('\t').collect();
    let [zone, ty_name, input, outcome, first, second] = fields[..] else { panic!("a line of six fields: {line}") };
    let zone = TimeZone::parse(zone).unwrap();
    let ty = PgType::parse(ty_name).unwrap();
    let context = TimeContext { zone, now_us: 0 };
    let mut builder = ColumnBuilder::new(&ty, context, 1);
    let read = builder.append_text(input.as_bytes());
    if outcome != "ok" {
        let ours = match read {
            Ok(()) => {
                let array = builder.finish();
                let mut text = Vec::new();
                Formatter { zone }.format(&array, 0, &ty, &mut text).unwrap();
                format!("ok {}", String::from_utf8_lossy(&text))
            }
            Err(error) => {
                let extra = error.detail.or(error.hint).unwrap_or_default();
                format!("{}\t{}\t{}", error.code, error.message, extra)
            }
        };
        let theirs = format!("{outcome}\t{first}\t{second}");
        return (ours != theirs).then(|| format!("{ty_name} {input:?}: ours {ours:?}, theirs {theirs:?}"));
    }
    if let Err(error) = read {
        return Some(format!("{ty_name} {input:?}: ours {error}, theirs {first:?}"));
    }
    let array = builder.finish();
    assert_eq!(*array.data_type(), ty.arrow());
    let (mut text, mut binary) = (Vec::new(), Vec::new());
    ColumnText::new(&array, &ty, &Formatter { zone }).unwrap().write(0, &mut text);
    ColumnBinary::new(&array, &ty).unwrap().write(0, &mut binary).unwrap();
    let text = String::from_utf8(text).unwrap();
    // Without limits we keep no trailing zeros, so the scale in the header may differ; it is only shown.
    let same_binary = hex(&binary) == second || ty == PgType::Numeric(None);
    let same_text =
        text == first || ty == PgType::Numeric(None) && first.contains('.') && text == first.trim_end_matches('0');
    if !same_text || !same_binary {
        return Some(format!("{ty_name} {input:?}: ours {text:?} {}, theirs {first:?} {second}", hex(&binary)));
    }
    let mut back = ColumnBuilder::new(&ty, context, 1);
    back.append_binary(&bytes(second)).unwrap();
    let back = back.finish();
    // NaN is not equal to itself.
    let equal = back.as_ref() == array.as_ref() || text.contains("NaN");
    (!equal).then(|| format!("{ty_name} {input:?}: came back from binary as {back:?}"))
}

#[test]
fn postgres_agrees() {
    let cases = include_str!("testdata/postgres15.tsv");
    let wrong: Vec<String> = cases.lines().filter(|line| !line.starts_with('#')).filter_map(disagreement).collect();
    assert!(wrong.is_empty(), "{} disagreements:\n{}", wrong.len(), wrong.join("\n"));
}

/// Values of every family, written as text and read again.
mod round_trip {
    use super::*;
    use crate::types::calendar::{DATE_MAX, DATE_MIN, TIMESTAMP_MIN, US_PER_DAY};
    use arrow::array::{
        ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int64Array,
        IntervalMonthDayNanoArray, StringArray, Time64MicrosecondArray, TimestampMicrosecondArray,
    };
    use arrow::datatypes::IntervalMonthDayNano;
    use proptest::prelude::*;
    use std::sync::Arc;

    fn survives(array: ArrayRef, ty: PgType, zone: &str) -> Result<(), TestCaseError> {
        let zone = TimeZone::parse(zone).unwrap();
        let column = ColumnText::new(&array, &ty, &Formatter { zone }).unwrap();
        let binary = ColumnBinary::new(&array, &ty).unwrap();
        let context = TimeContext { zone, now_us: 0 };
        let (mut by_text, mut by_binary) = (ColumnBuilder::new(&ty, context, 1), ColumnBuilder::new(&ty, context, 1));
        for row in 0..array.len() {
            let (mut text, mut bytes) = (Vec::new(), Vec::new());
            column.write(row, &mut text);
            binary.write(row, &mut bytes).unwrap();
            by_text
                .append_text(&text)
                .map_err(|e| TestCaseError::fail(format!("{}: {e}", String::from_utf8_lossy(&text))))?;
            by_binary.append_binary(&bytes).unwrap();
        }
        prop_assert_eq!(&by_text.finish(), &array);
        prop_assert_eq!(&by_binary.finish(), &array);
        Ok(())
    }

    fn zones() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec!["UTC", "Europe/Berlin", "America/St_Johns", "Asia/Kathmandu", "+05:30"])
    }

    proptest! {
        #[test]
        fn booleans_and_integers(flag: bool, integer: i64) {
            survives(Arc::new(BooleanArray::from(vec![flag])), PgType::Bool, "UTC")?;
            survives(Arc::new(Int64Array::from(vec![integer])), PgType::Int8, "UTC")?;
        }

        #[test]
        fn floats(double in any::<f64>(), single in any::<f32>()) {
            survives(Arc::new(Float64Array::from(vec![double])), PgType::Float8, "UTC")?;
            survives(Arc::new(Float32Array::from(vec![single])), PgType::Float4, "UTC")?;
        }

        /// The fast path agrees with the standard library.
        #[test]
        fn short_decimals(text in "-?[0-9]{1,9}(\\.[0-9]{0,8})?") {
            prop_assert_eq!(crate::types::parse_float8(&text).unwrap().to_bits(), text.parse::<f64>().unwrap().to_bits());
        }

        #[test]
        fn numerics(value in -(10_i128.pow(38) - 1)..10_i128.pow(38), scale in 0_i8..=38) {
            for ty in [PgType::Numeric(Some((38, scale))), PgType::Numeric(None)] {
                let array = Decimal128Array::from(vec![value]).with_data_type(ty.arrow());
                survives(Arc::new(array), ty, "UTC")?;
            }
        }

        #[test]
        fn texts_and_bytes(text in "[^\u{0}]*", bytes: Vec<u8>) {
            survives(Arc::new(StringArray::from(vec![text])), PgType::Text, "UTC")?;
            survives(Arc::new(BinaryArray::from(vec![bytes.as_slice()])), PgType::Bytea, "UTC")?;
        }

        #[test]
        fn dates_and_times(days in DATE_MIN..=DATE_MAX, us in 0..=US_PER_DAY) {
            survives(Arc::new(Date32Array::from(vec![days, i32::MAX, i32::MIN])), PgType::Date, "UTC")?;
            survives(Arc::new(Time64MicrosecondArray::from(vec![us])), PgType::Time, "UTC")?;
        }

        #[test]
        fn timestamps(us in TIMESTAMP_MIN..i64::MAX) {
            survives(Arc::new(TimestampMicrosecondArray::from(vec![us, i64::MAX, i64::MIN])), PgType::Timestamp, "UTC")?;
        }

        /// A day off the ends, where the local reading would leave the range.
        #[test]
        fn timestamps_in_zones(us in TIMESTAMP_MIN + US_PER_DAY..i64::MAX - US_PER_DAY, zone in zones()) {
            let array = TimestampMicrosecondArray::from(vec![us]).with_timezone("UTC");
            survives(Arc::new(array), PgType::Timestamptz, zone)?;
        }

        #[test]
        fn recent_timestamps_in_zones(us in 0..4_102_444_800_000_000_i64, zone in zones()) {
            let array = TimestampMicrosecondArray::from(vec![us]).with_timezone("UTC");
            survives(Arc::new(array), PgType::Timestamptz, zone)?;
        }

        #[test]
        fn intervals(months: i32, days: i32, us in i64::MIN / 1000..i64::MAX / 1000) {
            let value = IntervalMonthDayNano::new(months, days, us * 1000);
            survives(Arc::new(IntervalMonthDayNanoArray::from(vec![value])), PgType::Interval, "UTC")?;
        }

        #[test]
        fn arrays(elements in prop::collection::vec(prop::option::of("[^\u{0}]*"), 0..6)) {
            let ty = PgType::Array(Box::new(PgType::Text));
            let mut builder = ColumnBuilder::new(&ty, TimeContext::UTC, 1);
            let mut bytes = Vec::new();
            for word in [1, 0, 25, elements.len() as i32, 1] {
                bytes.extend_from_slice(&word.to_be_bytes());
            }
            for element in &elements {
                match element {
                    Some(text) => {
                        bytes.extend_from_slice(&(text.len() as i32).to_be_bytes());
                        bytes.extend_from_slice(text.as_bytes());
                    }
                    None => bytes.extend_from_slice(&(-1_i32).to_be_bytes()),
                }
            }
            builder.append_binary(&bytes).unwrap();
            survives(builder.finish(), ty, "UTC")?;
        }

        /// No bytes from a client make a reader panic.
        #[test]
        fn hostile_input(text: String, bytes: Vec<u8>) {
            for ty in PgType::all() {
                let array = PgType::Array(Box::new(ty.clone()));
                for ty in [ty, array] {
                    let mut builder = ColumnBuilder::new(&ty, TimeContext::UTC, 1);
                    let _ = builder.append_text(text.as_bytes());
                    let _ = builder.append_binary(&bytes);
                }
            }
        }

        /// Dense in almost-valid texts.
        #[test]
        fn hostile_times(text in "[-+0-9:./ TZPaJjnoewBCdymsh]{0,24}") {
            for ty in [PgType::Date, PgType::Time, PgType::Timestamp, PgType::Timestamptz, PgType::Interval] {
                let _ = ColumnBuilder::new(&ty, TimeContext::UTC, 1).append_text(text.as_bytes());
            }
        }
    }
}

/// Layouts that plans produce and no column is stored in.
mod layouts {
    use super::*;
    use arrow::array::{
        ArrayRef, BinaryViewArray, DictionaryArray, DurationNanosecondArray, Int8Array, Int32Array, LargeStringArray,
        StringViewArray, Time32SecondArray, TimestampMillisecondArray, TimestampSecondArray, UInt64Array,
    };
    use arrow::datatypes::{DataType, Int32Type};
    use std::sync::Arc;

    #[track_caller]
    fn shown(array: impl Array + 'static, ty: PgType, expected: &[Option<&str>]) {
        let array: ArrayRef = Arc::new(array);
        let column = ColumnText::new(&array, &ty, &Formatter::UTC).unwrap();
        for (row, expected) in expected.iter().enumerate() {
            let mut text = Vec::new();
            column.write(row, &mut text);
            let text = (!column.is_null(row)).then(|| String::from_utf8(text).unwrap());
            assert_eq!(text.as_deref(), *expected);
        }
    }

    #[test]
    fn every_layout_is_shown() {
        let dictionary: DictionaryArray<Int32Type> = [Some("a"), None, Some("a")].into_iter().collect();
        shown(dictionary, PgType::Text, &[Some("a"), None, Some("a")]);
        shown(
            StringViewArray::from(vec!["a view of more than twelve"]),
            PgType::Text,
            &[Some("a view of more than twelve")],
        );
        shown(LargeStringArray::from(vec![Some("x"), None]), PgType::Varchar(None), &[Some("x"), None]);
        shown(BinaryViewArray::from(vec![b"\x01\xff".as_slice()]), PgType::Bytea, &[Some("\\x01ff")]);
        shown(Int8Array::from(vec![-1]), PgType::Int2, &[Some("-1")]);
        shown(UInt64Array::from(vec![7]), PgType::Int8, &[Some("7")]);
        shown(TimestampSecondArray::from(vec![0]), PgType::Timestamp, &[Some("1970-01-01 00:00:00")]);
        let millis = TimestampMillisecondArray::from(vec![1_500]).with_timezone("Europe/Berlin");
        shown(millis, PgType::Timestamptz, &[Some("1970-01-01 00:00:01.5+00")]);
        shown(Time32SecondArray::from(vec![61]), PgType::Time, &[Some("00:01:01")]);
        let hour_ns = 3_600_000_000_000;
        let durations = DurationNanosecondArray::from(vec![25 * hour_ns, -hour_ns, -25 * hour_ns]);
        shown(durations, PgType::Interval, &[Some("1 day 01:00:00"), Some("-01:00:00"), Some("-1 days -01:00:00")]);
        shown(arrow::array::new_null_array(&DataType::Null, 1), PgType::Text, &[None]);
        shown(LargeStringArray::from(vec!["conditions"]), PgType::Regclass, &[Some("conditions")]);
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let array = UInt64Array::from(vec![u64::MAX]);
        let error = ColumnText::new(&array, &PgType::Int8, &Formatter::UTC).err().unwrap();
        assert_eq!((error.code.as_str(), error.message.as_str()), ("22003", "bigint out of range"));
        let error =
            ColumnText::new(&Int32Array::from(vec![1]), &PgType::Array(Box::new(PgType::Int4)), &Formatter::UTC);
        assert_eq!(error.err().unwrap().code.as_str(), "XX000");
    }
}

/// `now()` is 2021-07-01 22:30 UTC: already the 2nd in Berlin.
#[test]
fn words_are_read_against_the_session() {
    let context = TimeContext { zone: TimeZone::parse("Europe/Berlin").unwrap(), now_us: 1_625_178_600_000_000 };
    let shown = |ty: PgType, text: &str| {
        let mut builder = ColumnBuilder::new(&ty, context, 1);
        builder.append_text(text.as_bytes()).unwrap();
        let mut out = Vec::new();
        Formatter { zone: context.zone }.format(&builder.finish(), 0, &ty, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    };
    assert_eq!(shown(PgType::Timestamptz, "now"), "2021-07-02 00:30:00+02");
    assert_eq!(shown(PgType::Timestamp, "now"), "2021-07-02 00:30:00");
    assert_eq!(shown(PgType::Timestamptz, "today"), "2021-07-02 00:00:00+02");
    assert_eq!(shown(PgType::Timestamptz, "tomorrow 12:00"), "2021-07-03 12:00:00+02");
    assert_eq!(shown(PgType::Timestamptz, "yesterday 12:00 UTC"), "2021-07-01 14:00:00+02");
    assert_eq!(shown(PgType::Date, "today"), "2021-07-02");
    assert_eq!(shown(PgType::Time, "now"), "00:30:00");
}
