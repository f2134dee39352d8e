"""Estimates of how right each class is, kept so that no page has to read thousands of labels."""

from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    for statement in (ESTIMATES, GRANTS):
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE class_estimates")


ESTIMATES = """
CREATE TABLE class_estimates (
    policy_id integer NOT NULL REFERENCES policies,
    class_name varchar NOT NULL,
    encoder_id integer NOT NULL REFERENCES encoders,
    labels integer NOT NULL,
    estimates jsonb NOT NULL,
    agreement jsonb,
    calibrated boolean NOT NULL,
    newest timestamptz NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (policy_id, class_name, encoder_id)
);
COMMENT ON COLUMN class_estimates.labels IS 'With a known chance, that it rests on.';
COMMENT ON COLUMN class_estimates.estimates IS 'precision, recall, prevalence.';
COMMENT ON COLUMN class_estimates.agreement IS
    'Of probabilities with the truth: Brier score, log loss, calibration error, bins.';
COMMENT ON COLUMN class_estimates.calibrated IS 'The version has a calibration of the class.';
COMMENT ON COLUMN class_estimates.newest IS 'The newest label that it rests on.';
"""

GRANTS = "GRANT SELECT, INSERT, UPDATE, DELETE ON class_estimates TO filter_service_app"
