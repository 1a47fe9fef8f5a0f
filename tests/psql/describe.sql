\d conditions
\d+ conditions
\d plain
\d hot
\d conditions_time_idx
\d nowhere
\d
\dt
\dt nowhere
\dv
\di
\du
\des
