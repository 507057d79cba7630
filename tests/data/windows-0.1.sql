CREATE TABLE windows (id INTEGER NOT NULL, model_version VARCHAR NOT NULL, start DATETIME NOT NULL,
  "end" DATETIME NOT NULL, state VARCHAR NOT NULL, reopened_at DATETIME, closed_at DATETIME, result VARCHAR,
  PRIMARY KEY (id));
CREATE UNIQUE INDEX one_a_stretch ON windows (model_version, start);
CREATE TABLE members (record_id VARCHAR NOT NULL, model_version VARCHAR NOT NULL, asked_at DATETIME NOT NULL,
  window_id INTEGER, late BOOLEAN NOT NULL, counted BOOLEAN NOT NULL, judge_id VARCHAR, verdict VARCHAR,
  PRIMARY KEY (record_id));
CREATE TABLE kept (name VARCHAR NOT NULL, value VARCHAR NOT NULL, PRIMARY KEY (name));
