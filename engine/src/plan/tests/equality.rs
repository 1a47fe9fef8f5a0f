//! Every query returns the same rows with push-down on and off, on one node, two and three.

use super::cluster::{Cluster, WAYS, text};

/// `true`: the order is part of the answer.
pub const QUERIES: &[(bool, &str)] = &[
    (false, "SELECT * FROM conditions"),
    (false, "SELECT temp, device FROM conditions WHERE device = 7"),
    (false, "SELECT count(*) FROM conditions"),
    (false, "SELECT count(*), sum(temp), min(time), max(host), avg(temp) FROM conditions WHERE temp > 20"),
    (false, "SELECT count(*) FROM conditions WHERE device IN (1, 2, 3) AND temp IS NOT NULL"),
    (false, "SELECT device, count(*), sum(temp), avg(temp) FROM conditions GROUP BY device"),
    (false, "SELECT host, count(*), min(temp), max(temp), avg(temp) FROM conditions GROUP BY host"),
    (false, "SELECT device, host, sum(temp) FROM conditions GROUP BY device, host HAVING sum(temp) > 300"),
    (false, "SELECT date_trunc('day', time), device, avg(temp) FROM conditions GROUP BY 1, 2"),
    (false, "SELECT date_trunc('day', time) AS d, avg(temp) FROM conditions GROUP BY d"),
    (true, "SELECT device, sum(temp) AS s FROM conditions GROUP BY device ORDER BY s DESC, device LIMIT 5"),
    (true, "SELECT host, sum(temp) AS s FROM conditions GROUP BY host ORDER BY s, host LIMIT 3 OFFSET 2"),
    (true, "SELECT * FROM conditions ORDER BY time, device LIMIT 10"),
    (true, "SELECT * FROM conditions ORDER BY time DESC LIMIT 3 OFFSET 100"),
    (true, "SELECT time, temp FROM conditions WHERE device = 3 ORDER BY time"),
    (false, "SELECT count(*) FROM (SELECT * FROM conditions LIMIT 50) AS t"),
    (false, "SELECT DISTINCT device FROM conditions"),
    (false, "SELECT DISTINCT host FROM conditions WHERE time < '2019-01-10T00:00:00Z'::timestamptz"),
    (false, "SELECT DISTINCT ON (device) device, time, temp FROM conditions ORDER BY device, time DESC"),
    (false, "SELECT DISTINCT ON (host) host, time FROM conditions ORDER BY host, time"),
    (false, "SELECT count(DISTINCT device), count(DISTINCT host) FROM conditions"),
    (false, "SELECT host, count(DISTINCT device) FROM conditions GROUP BY host"),
    (false, "SELECT device, count(DISTINCT host) FROM conditions GROUP BY device"),
    (false, "SELECT max(s) FROM (SELECT device, sum(temp) AS s FROM conditions GROUP BY device) AS t"),
    (
        false,
        "SELECT host, max(s) FROM (SELECT device, host, sum(temp) AS s FROM conditions GROUP BY 1, 2) AS t GROUP BY host",
    ),
    (false, "SELECT time, row_number() OVER (PARTITION BY device ORDER BY time) FROM conditions"),
    (false, "SELECT time, sum(temp) OVER (PARTITION BY device ORDER BY time) FROM conditions"),
    (false, "SELECT time, rank() OVER (PARTITION BY host ORDER BY time) FROM conditions"),
    (false, "SELECT time, lag(temp) OVER (ORDER BY time) FROM conditions"),
    (false, "SELECT c.time, m.time FROM conditions c JOIN metrics m ON c.device = m.device AND c.host = m.host"),
    (false, "SELECT m.host, count(*) FROM conditions c JOIN metrics m USING (device) GROUP BY m.host"),
    (
        false,
        "SELECT m.time, c.n FROM metrics m LEFT JOIN (SELECT device, count(*) n FROM conditions GROUP BY device) c ON c.device = m.device",
    ),
    (
        false,
        "SELECT a.n, b.n FROM (SELECT device, count(*) n FROM conditions GROUP BY device) a JOIN (SELECT device, count(*) n FROM metrics GROUP BY device) b ON a.device = b.device",
    ),
    (false, "SELECT count(*) FROM conditions c, placed p WHERE c.device = p.device"),
    (false, "SELECT device FROM conditions UNION ALL SELECT device FROM metrics"),
    (false, "SELECT device FROM conditions UNION SELECT device FROM placed"),
    (
        false,
        "SELECT device, count(*) FROM (SELECT device FROM conditions UNION ALL SELECT device FROM metrics) u GROUP BY device",
    ),
    (false, "SELECT device FROM metrics EXCEPT SELECT device FROM placed"),
    (false, "SELECT count(*) FROM conditions WHERE temp > (SELECT avg(temp) FROM conditions)"),
    (false, "SELECT count(*) FROM metrics m WHERE EXISTS (SELECT 1 FROM placed p WHERE p.device = m.device)"),
    (false, "SELECT count(*) FROM metrics WHERE device NOT IN (SELECT device FROM placed WHERE device IS NOT NULL)"),
    (false, "SELECT device, sum(temp) FILTER (WHERE host = 'host_1') FROM conditions GROUP BY device"),
    (false, "SELECT host, sum(temp) FILTER (WHERE device > 10), count(*) FROM conditions GROUP BY host"),
    (false, "SELECT device, host, count(*) FROM conditions GROUP BY GROUPING SETS ((device), (host), ())"),
    (false, "SELECT device, host, count(*) FROM conditions GROUP BY ROLLUP (device, host)"),
    (false, "SELECT first_value(temp ORDER BY time), last_value(temp ORDER BY time) FROM conditions"),
    (false, "SELECT device, last_value(temp ORDER BY time) FROM conditions GROUP BY device"),
    (false, "SELECT host, last_value(time ORDER BY time) FROM conditions GROUP BY host"),
    (false, "SELECT host, array_agg(device ORDER BY time) FROM metrics GROUP BY host"),
    (
        false,
        "SELECT round(stddev(temp) * 1e6), round(var_pop(temp) * 1e6), bool_and(temp > 0), string_agg(host, ',' ORDER BY time) FROM metrics",
    ),
    (
        false,
        "SELECT round(corr(temp, device) * 1e6), round(covar_samp(temp, device) * 1e6), round(stddev_pop(temp) * 1e6) FROM metrics",
    ),
    (
        true,
        "WITH t AS (SELECT device, avg(temp) a FROM conditions GROUP BY device) SELECT * FROM t WHERE a > 40 ORDER BY a, device",
    ),
    (false, "SELECT device, count(*) FROM hot GROUP BY device"),
    (false, "SELECT * FROM placed WHERE temp > 90"),
    (true, "SELECT device, count(*) FROM placed GROUP BY device ORDER BY 2 DESC, 1"),
    (false, "SELECT p.time, (SELECT max(temp) FROM placed) FROM placed p"),
    (false, "SELECT count(*), max(temp) FROM nothing"),
    (false, "SELECT device, count(*) FROM nothing GROUP BY device"),
    (false, "SELECT count(*) FROM conditions c LEFT JOIN nothing n ON c.device = n.device"),
    (false, "SELECT count(*) FROM conditions WHERE time >= '2020-01-01T00:00:00Z'::timestamptz"),
    (
        false,
        "SELECT count(*), min(time) FROM conditions WHERE time >= '2019-01-10T00:00:00Z'::timestamptz AND time < '2019-01-17T00:00:00Z'::timestamptz",
    ),
    (false, "SELECT CASE WHEN device > 15 THEN 'high' ELSE 'low' END AS k, count(*) FROM conditions GROUP BY k"),
    (false, "SELECT device + 0 AS d, count(*) FROM conditions GROUP BY device + 0"),
    (false, "SELECT CAST(device AS bigint), count(*) FROM conditions GROUP BY 1"),
    (false, "SELECT 1 AS one, 'a' AS a"),
    (false, "VALUES (1, 'a'), (2, 'b')"),
    (false, "SELECT v.d, count(*) FROM (VALUES (1), (2)) v(d) JOIN conditions c ON c.device = v.d GROUP BY v.d"),
    (false, "SELECT NULL AS n, count(*) FROM conditions WHERE device IS NULL"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn push_down_changes_no_answer() {
    let names = ["dn1", "dn2", "dn3"];
    let one = Cluster::new(&names[..1]);
    let mut wrong = Vec::new();
    for nodes in 1..=3 {
        let cluster = Cluster::new(&names[..nodes]);
        for (in_order, sql) in QUERIES {
            let expected = text(&one.query(sql, false).await.unwrap_or_else(|e| panic!("{sql}: {e}")), *in_order);
            for (push_down, shuffle) in WAYS {
                *cluster.shuffle.lock() = shuffle;
                match cluster.query(sql, push_down).await {
                    Ok(answer) if text(&answer, *in_order) == expected => {}
                    Ok(answer) => wrong.push(format!(
                        "{nodes} nodes, {push_down}, {shuffle:?}: {sql}: {} rows, not {}",
                        text(&answer, true).len(),
                        expected.len()
                    )),
                    Err(error) => wrong.push(format!("{nodes} nodes, {push_down}: {sql}: {error}")),
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
