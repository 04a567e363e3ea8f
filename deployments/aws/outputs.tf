output "load_balancer" {
  description = "Point your name at it: a CNAME, or an alias record."
  value       = aws_lb.service.dns_name
}

output "migrate" {
  description = "The command that brings the schema up to date."
  value = join(" ", [
    "aws ecs run-task --region ${var.region} --cluster ${aws_ecs_cluster.service.name} --launch-type FARGATE",
    "--task-definition ${aws_ecs_task_definition.migrate.arn}",
    "--network-configuration 'awsvpcConfiguration={subnets=[${join(",", var.private_subnet_ids)}],securityGroups=[${aws_security_group.service.id}]}'",
  ])
}

output "database_endpoint" {
  description = "The database's writer."
  value       = aws_rds_cluster.database.endpoint
}
